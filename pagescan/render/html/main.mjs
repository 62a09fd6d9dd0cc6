// Puts the page together.

import { LOWEST, placeOf, table } from "./colour.mjs";
import { store } from "./cursor.mjs";
import { bytesOf, inflate } from "./decode.mjs";
import { percent } from "./format.mjs";
import { follow } from "./keys.mjs";
import { drawLines, element } from "./lines.mjs";
import { mapOf } from "./map.mjs";
import { modelOf } from "./model.mjs";
import { writeHead, writeMappings, writeWriters } from "./tables.mjs";
import { whole } from "./view.mjs";

const PRINTED = 680; // pixels: the width of a sheet of A4 between its margins
const TICKS = [0.001, 0.01, 0.1, 1];

const part = (id) => document.getElementById(id);

/** Draws the scale of colours with its ticks. */
function drawLegend({ theme, log }) {
  const canvas = part("scale");
  const colours = table(theme);
  const pen = canvas.getContext("2d");
  for (let x = 0; x < canvas.width; x++) {
    const colour = colours[Math.round((x / (canvas.width - 1)) * 255)];
    pen.fillStyle = `rgb(${colour.join(",")})`;
    pen.fillRect(x, 0, 1, canvas.height);
  }
  const shares = log ? TICKS : [0, 0.25, 0.5, 0.75, 1];
  part("ticks").replaceChildren(
    ...shares.map((share) => {
      const words = log && share === LOWEST ? `≤ ${percent(share)}` : percent(share);
      const tick = element("span", words);
      tick.style.left = `${placeOf(share, log) * 100}%`;
      return tick;
    }),
  );
  part("log").textContent = log ? "Log scale" : "Linear scale";
  part("log").setAttribute("aria-pressed", String(log));
}

function start(model) {
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const state = store({
    view: whole(model.from, model.to),
    time: null,
    theme: dark.matches ? "dark" : "light",
    log: true,
  });
  const map = mapOf(model, part("base"), part("over"), part("addresses"));
  const pointer = follow(map, state, { tip: part("tip"), spoken: part("spoken") });
  const lines = drawLines(model, state, part("lines"), uPlot);
  let printed = false;

  const width = () => (printed ? PRINTED : part("map").clientWidth);
  const height = () => (width() < 700 ? 420 : 500);
  const draw = (now) => {
    map.draw(now, width(), height());
    pointer.point();
    drawLegend(now);
  };
  const drawAll = () => {
    const now = state.get();
    document.documentElement.dataset.theme = now.theme;
    part("theme").textContent = now.theme === "dark" ? "Light" : "Dark";
    draw(now);
    lines.draw(now, width());
  };

  let waiting = false;
  state.watch((now, names) => {
    if (names.includes("theme")) drawAll();
    else if (names.includes("log")) draw(now);
    if (names.includes("view")) {
      lines.view(now);
      if (!waiting)
        requestAnimationFrame(() => {
          waiting = false;
          draw(state.get());
          pointer.tell(false);
        });
      waiting = true;
    }
    if (names.includes("time")) {
      lines.time(now);
      pointer.point();
    }
  });

  dark.addEventListener("change", () => state.set({ theme: dark.matches ? "dark" : "light" }));
  const press = (id, action) => part(id).addEventListener("click", action);
  press("theme", () => state.set({ theme: state.get().theme === "dark" ? "light" : "dark" }));
  press("log", () => state.set({ log: !state.get().log }));
  press("closer", () => pointer.zoom(0.6, false));
  press("farther", () => pointer.zoom(1 / 0.6, false));
  press("taller", () => pointer.zoom(0.6, true));
  press("flatter", () => pointer.zoom(1 / 0.6, true));
  press("reset", pointer.reset);

  let last = 0;
  new ResizeObserver(() => {
    if (printed || width() === last) return;
    last = width();
    drawAll();
  }).observe(part("map"));

  let before = null;
  addEventListener("beforeprint", () => {
    before = state.get().theme;
    printed = true;
    state.set({ theme: "light" });
    drawAll();
  });
  addEventListener("afterprint", () => {
    printed = false;
    state.set({ theme: before });
    drawAll();
  });

  writeHead(model, {
    title: part("title"), facts: part("facts"), notes: part("notes"), figures: part("figures"),
  });
  writeMappings(model, part("mappings"), part("never"), part("more"), ({ top, bottom }) => {
    pointer.show(top, bottom);
    part("map").scrollIntoView({ block: "center" });
  });
  writeWriters(model, part("functions"), part("writers"), part("more-writers"), part("by-process"));
  last = width();
  drawAll();
  document.documentElement.dataset.ready = String(Math.round(performance.now()));
}

async function open() {
  try {
    start(modelOf(await inflate(bytesOf(part("data").textContent.trim()))));
  } catch (error) {
    part("title").textContent = "This page cannot be shown";
    part("facts").textContent =
      typeof DecompressionStream === "undefined"
        ? "It needs a browser of 2023 or later: Chromium 80, Firefox 113, Safari 16.4."
        : String(error);
    throw error;
  }
}

open();
