// Pointer and keyboard on the map: hover, zoom, pan, and the words for the cell.

import { describe } from "./hover.mjs";
import { clamp, pan, whole, zoomMemory, zoomTime } from "./view.mjs";

const CLOSER = 0.6;
const STEP = 0.2;
const LEAST_DRAG = 5; // pixels: a shorter one is a click

/** Makes the map answer; `parts` has `tip` and `spoken`, where the words are written. */
export function follow(map, state, parts) {
  const { model, over } = map;
  const { tip, spoken } = parts;
  let cell = null; // the pointer or the keyboard's cell, in pixels of the map
  let drag = null;

  const limits = whole(model.from, model.to);
  const show = (view) => state.set({ view: clamp(view, limits, model.leastTime) });
  const at = (event) => {
    const box = over.getBoundingClientRect();
    return {
      x: Math.min(Math.max(event.clientX - box.left - map.gutter, 0), map.width - 1),
      y: Math.min(Math.max(event.clientY - box.top, 0), map.height - 1),
    };
  };

  const point = () => {
    const selection = drag && drag.box ? boxOf(drag.begun, cell) : null;
    map.point(state.get(), cell, selection);
  };

  /** Writes the words for the cell, beside it. */
  const tell = (aloud) => {
    const words = cell && describe(model, map.picture, ...map.cellAt(cell.x, cell.y));
    tip.hidden = !words;
    if (!words) return;
    tip.replaceChildren(...[words.headline, ...words.lines].map(paragraph));
    if (aloud) spoken.textContent = [words.headline, ...words.lines].join(". ");
    const room = over.clientWidth;
    const left = map.gutter + cell.x;
    const width = tip.offsetWidth;
    const place = left + 16 + width > room ? left - width - 12 : left + 16;
    tip.style.left = `${Math.min(Math.max(place, 0), Math.max(room - width, 0))}px`;
    const below = cell.y + 18 + tip.offsetHeight < over.clientHeight;
    tip.style.top = `${below ? cell.y + 18 : Math.max(cell.y - tip.offsetHeight - 12, 0)}px`;
  };

  const move = (next, aloud = false) => {
    cell = next;
    const { view } = state.get();
    state.set({ time: cell ? map.timeAt(view, cell.x + 0.5) : null });
    point();
    tell(aloud);
  };

  over.addEventListener("pointermove", (event) => {
    const here = at(event);
    if (drag && !drag.box) {
      const { view, begun } = drag;
      show(pan(view, (begun.x - here.x) / map.width, drag.flat ? 0 : (begun.y - here.y) / map.height));
    }
    move(here);
  });
  over.addEventListener("pointerleave", () => drag || move(null));
  over.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    over.setPointerCapture(event.pointerId);
    const flat = event.pointerType === "touch";
    const box = !event.shiftKey && !flat;
    drag = { begun: at(event), view: state.get().view, box, flat };
    move(at(event));
  });
  over.addEventListener("pointercancel", () => {
    drag = null;
    point();
  });
  over.addEventListener("pointerup", (event) => {
    const done = drag;
    drag = null;
    if (!done) return;
    const [left, top, width, height] = boxOf(done.begun, at(event));
    if (done.box && Math.max(width, height) >= LEAST_DRAG) {
      const { view } = state.get();
      const times = width >= LEAST_DRAG;
      const memory = height >= LEAST_DRAG;
      show({
        from: times ? map.timeAt(view, left) : view.from,
        to: times ? map.timeAt(view, left + width) : view.to,
        top: memory ? map.placeAt(view, top) : view.top,
        bottom: memory ? map.placeAt(view, top + height) : view.bottom,
      });
    }
    move(at(event));
  });
  over.addEventListener("dblclick", () => show(limits));
  over.addEventListener(
    "wheel",
    (event) => {
      if (!event.ctrlKey && !event.metaKey) return; // else the page scrolls
      event.preventDefault();
      zoom(Math.exp((event.deltaY || event.deltaX) * 0.002), event.shiftKey, at(event));
      move(at(event));
    },
    { passive: false },
  );

  /** Zooms by a factor about a place: in time, or in memory. */
  const zoom = (factor, memory, about) => {
    const { view } = state.get();
    const here = about ?? cell ?? { x: map.width / 2, y: map.height / 2 };
    show(
      memory
        ? zoomMemory(view, factor, map.placeAt(view, here.y))
        : zoomTime(view, factor, map.timeAt(view, here.x)),
    );
  };

  /** Moves the keyboard's cell by one look, or by some pixels of memory. */
  const step = (looks, pixels) => {
    const { view } = state.get();
    const here = cell ?? { x: map.width / 2, y: map.height / 2 };
    let { x } = here;
    if (looks) x = map.xOf(view, nextLook(model, map.timeAt(view, here.x + 0.5), looks, map, view));
    move(
      {
        x: Math.min(Math.max(x, 0), map.width - 1),
        y: Math.min(Math.max(here.y + pixels, 0), map.height - 1),
      },
      true,
    );
  };

  const keys = {
    ArrowLeft: (shift) => (shift ? show(pan(state.get().view, -STEP, 0)) : step(-1, 0)),
    ArrowRight: (shift) => (shift ? show(pan(state.get().view, STEP, 0)) : step(1, 0)),
    ArrowUp: (shift) => (shift ? show(pan(state.get().view, 0, -STEP)) : step(0, -4)),
    ArrowDown: (shift) => (shift ? show(pan(state.get().view, 0, STEP)) : step(0, 4)),
    "+": () => zoom(CLOSER, false),
    "=": () => zoom(CLOSER, false),
    "-": () => zoom(1 / CLOSER, false),
    "]": () => zoom(CLOSER, true),
    "[": () => zoom(1 / CLOSER, true),
    0: () => show(limits),
    Home: () => show(limits),
    Escape: () => move(null),
  };
  over.addEventListener("keydown", (event) => {
    const action = !event.ctrlKey && !event.metaKey && !event.altKey && keys[event.key];
    if (!action) return;
    event.preventDefault();
    action(event.shiftKey);
    if (cell) tell(true);
  });

  return {
    point,
    tell,
    zoom,
    reset: () => show(limits),
    show: (top, bottom) => show({ ...state.get().view, top, bottom }),
    times: (from, to) => show({ ...state.get().view, from, to }),
    leave: () => {
      cell = null;
      tip.hidden = true;
    },
  };
}

function paragraph(text) {
  const element = document.createElement("div");
  element.textContent = text;
  return element;
}

function boxOf(one, other) {
  const left = Math.min(one.x, other.x);
  const top = Math.min(one.y, other.y);
  return [left, top, Math.abs(one.x - other.x), Math.abs(one.y - other.y)];
}

/** Returns the middle of the next look at the left (-1) or right (1) of a moment. */
export function nextLook(model, time, direction, map, view) {
  const pixel = (view.to - view.from) / map.width;
  const { from, to } = model.frames;
  let best = time;
  let distance = Infinity;
  for (let frame = 0; frame < from.length; frame++) {
    const middle = (from[frame] + to[frame]) / 2;
    const away = (middle - time) * direction;
    const other = from[frame] > time || to[frame] <= time;
    if (other && away >= pixel / 2 && away < distance) [best, distance] = [middle, away];
  }
  return best;
}
