// The part of the recording that is shown: a window in time, and one in memory from 0 to 1.

const LEAST_MEMORY = 1e-7;

/** Returns the view of everything. */
export function whole(from, to) {
  return { from, to, top: 0, bottom: 1 };
}

/** Returns a window of some length within limits, as near to its wanted place as possible. */
function slide(low, high, limits, least) {
  const room = limits[1] - limits[0];
  const length = Math.min(Math.max(high - low, Math.min(least, room)), room);
  const middle = (low + high) / 2;
  const start = Math.min(Math.max(middle - length / 2, limits[0]), limits[1] - length);
  return [start, start + length];
}

/** Returns a view that is moved inside the limits, which are a view, too. */
export function clamp(view, limits, least) {
  const [from, to] = slide(view.from, view.to, [limits.from, limits.to], least);
  const [top, bottom] = slide(view.top, view.bottom, [0, 1], LEAST_MEMORY);
  return { from, to, top, bottom };
}

/** Returns a view that is zoomed in time by a factor about a moment; below 1: closer. */
export function zoomTime(view, factor, about) {
  const from = about - (about - view.from) * factor;
  return { ...view, from, to: from + (view.to - view.from) * factor };
}

/** Returns a view that is zoomed in memory by a factor about a place. */
export function zoomMemory(view, factor, about) {
  const top = about - (about - view.top) * factor;
  return { ...view, top, bottom: top + (view.bottom - view.top) * factor };
}

/** Returns a view that is moved by parts of its own size. */
export function pan(view, right, down) {
  const time = (view.to - view.from) * right;
  const memory = (view.bottom - view.top) * down;
  return {
    from: view.from + time,
    to: view.to + time,
    top: view.top + memory,
    bottom: view.bottom + memory,
  };
}
