// The map of time and memory: draws it on two canvases, one of them for the cursor.

import { addressTicks, linesOf } from "./addresses.mjs";
import { THEMES, paint, table } from "./colour.mjs";
import { address, clock, ticks } from "./format.mjs";
import { raster } from "./raster.mjs";

const AXIS = 26;
const LABEL = 15; // pixels of height that a label needs
const DIGITS = 13; // pixels of height that a line of digits needs
const NARROW = 700;

/** Returns the space at the left of all charts, so that their times stand one below another. */
export function gutterOf(width) {
  return width < NARROW ? 66 : 168;
}

/** Returns the space at their right; on a wide screen the addresses of the map are there. */
export function rightOf(width) {
  return width < NARROW ? 14 : 118;
}

/** Returns a map that draws itself on `base`, its cursor on `over`, its addresses in `beside`. */
export function mapOf(model, base, over, beside) {
  const map = { model, base, over, beside, picture: null, width: 0, height: 0, ratio: 1 };

  /** Draws everything: after a change of size, view, theme or scale. */
  map.draw = (state, width, height) => {
    map.gutter = gutterOf(width);
    map.ratio = Math.min(Math.max(window.devicePixelRatio || 1, 1), 2);
    map.width = width - map.gutter - rightOf(width);
    map.height = height - AXIS;
    for (const canvas of [base, over]) {
      canvas.width = Math.round(width * map.ratio);
      canvas.height = Math.round(height * map.ratio);
      canvas.style.width = `${width}px`;
      canvas.style.height = `${height}px`;
    }
    const pen = base.getContext("2d");
    pen.scale(map.ratio, map.ratio);
    drawMemory(map, pen, state);
    drawBands(map, pen, state);
    drawTimes(map, pen, state);
    drawAddresses(map, pen, state);
  };

  /** Draws the cursor, the cell under it and a selection. */
  map.point = (state, cell, selection) => {
    const pen = over.getContext("2d");
    pen.setTransform(map.ratio, 0, 0, map.ratio, 0, 0);
    pen.clearRect(0, 0, over.width, over.height);
    const theme = THEMES[state.theme];
    pen.strokeStyle = theme.cursor;
    if (state.time !== null) {
      const x = map.gutter + map.xOf(state.view, state.time);
      if (x >= map.gutter && x <= map.gutter + map.width) {
        pen.setLineDash([4, 3]);
        line(pen, x, 0, x, map.height);
      }
    }
    pen.setLineDash([]);
    if (cell) line(pen, map.gutter, cell.y, map.gutter + map.width, cell.y, 0.45);
    if (!selection) return;
    pen.globalAlpha = 0.2;
    pen.fillStyle = theme.cursor;
    const [left, top, width, height] = selection;
    pen.fillRect(map.gutter + left, top, width, height);
    pen.globalAlpha = 1;
    pen.strokeRect(map.gutter + left + 0.5, top + 0.5, width, height);
  };

  map.xOf = (view, time) => ((time - view.from) / (view.to - view.from)) * map.width;
  map.timeAt = (view, x) => view.from + (x / map.width) * (view.to - view.from);
  map.placeAt = (view, y) => view.top + (y / map.height) * (view.bottom - view.top);
  /** Returns the column and row of the picture at a place of the map. */
  map.cellAt = (x, y) => [
    Math.min(Math.max(Math.floor(x * map.ratio), 0), map.columns - 1),
    Math.min(Math.max(Math.floor(y * map.ratio), 0), map.rows - 1),
  ];
  return map;
}

function line(pen, x0, y0, x1, y1, alpha = 1) {
  pen.globalAlpha = alpha;
  pen.lineWidth = 1;
  pen.beginPath();
  pen.moveTo(Math.round(x0) + (x0 === x1 ? 0.5 : 0), Math.round(y0) + (y0 === y1 ? 0.5 : 0));
  pen.lineTo(Math.round(x1) + (x0 === x1 ? 0.5 : 0), Math.round(y1) + (y0 === y1 ? 0.5 : 0));
  pen.stroke();
  pen.globalAlpha = 1;
}

/** Draws mapped memory in the colour of "not written", and the written cells upon it. */
function drawMemory(map, pen, state) {
  const { model, ratio, gutter } = map;
  map.columns = Math.max(Math.round(map.width * ratio), 1);
  map.rows = Math.max(Math.round(map.height * ratio), 1);
  map.picture = raster(model, state.view, map.columns, map.rows);
  const theme = THEMES[state.theme];
  pen.fillStyle = theme.none;
  for (const one of map.picture.rows.visible) {
    for (const mapping of model.mappings) {
      if (mapping.process !== one.segment.process || mapping.last < mapping.first) continue;
      const start = Math.max(mapping.start, one.segment.start);
      const end = Math.min(mapping.end, one.segment.end);
      if (start >= end) continue;
      const y = (page) =>
        Math.min(Math.max((one.from + (page - one.segment.start) * one.perPage) / ratio, 0), map.height);
      const x = (time) => Math.min(Math.max(map.xOf(state.view, time), 0), map.width);
      const left = x(model.looks.from[mapping.first]);
      const right = x(model.looks.to[Math.min(mapping.last, model.looks.to.length - 1)]);
      pen.fillRect(gutter + left, y(start), right - left, y(end) - y(start));
    }
  }
  const image = new ImageData(map.columns, map.rows);
  paint(image.data, map.picture.cells, map.columns, map.rows, table(state.theme), state.log);
  const canvas = document.createElement("canvas");
  canvas.width = map.columns;
  canvas.height = map.rows;
  canvas.getContext("2d").putImageData(image, 0, 0);
  pen.drawImage(canvas, gutter, 0, map.columns / ratio, map.rows / ratio);
}

/** Draws a line between bands, a dashed one where a band is cut, and the labels. */
function drawBands(map, pen, state) {
  const theme = THEMES[state.theme];
  const { view } = state;
  const scale = map.height / (view.bottom - view.top);
  const y = (place) => (place - view.top) * scale;
  const inside = map.gutter < 100;
  pen.font = "12px system-ui, sans-serif";
  pen.textBaseline = "middle";
  let free = 0;
  let process = map.model.bands[0]?.process;
  for (const band of map.model.bands) {
    const another = band.process !== process;
    process = band.process;
    const top = Math.max(y(band.top), 0);
    const bottom = Math.min(y(band.bottom), map.height);
    if (bottom <= 0 || top >= map.height) continue;
    pen.strokeStyle = theme.soft;
    for (const segment of band.segments.slice(1)) {
      const at = y(segment.top);
      if (at <= 0 || at >= map.height || (segment.bottom - segment.top) * scale < 3) continue;
      pen.setLineDash([2, 3]);
      line(pen, map.gutter, at, map.gutter + map.width, at, 0.8);
    }
    pen.setLineDash([]);
    if (another) pen.strokeStyle = theme.text;
    if (top > 0)
      line(pen, inside && !another ? map.gutter : 0, top, map.gutter + map.width, top, another ? 1 : 0.55);
    const middle = inside ? top + LABEL / 2 + 1 : (top + bottom) / 2;
    if (bottom - top < LABEL - 1 || middle - LABEL / 2 < free) continue;
    free = middle + LABEL / 2;
    label(map, pen, theme, band, middle, inside);
  }
}

function label(map, pen, theme, band, middle, inside) {
  const room = (inside ? map.width - 12 : map.gutter - 16);
  const titles = titlesOf(map.model, band);
  const fits = titles.find((title) => pen.measureText(title).width <= room);
  const words = fits ?? shorten(pen, titles[titles.length - 1], room);
  pen.textAlign = inside ? "left" : "right";
  if (inside) {
    pen.fillStyle = theme.label;
    pen.fillRect(map.gutter + 1, middle - LABEL / 2, pen.measureText(words).width + 8, LABEL);
  }
  pen.fillStyle = theme.text;
  pen.fillText(words, inside ? map.gutter + 5 : map.gutter - 9, middle);
}

/** Returns the name of a mapping: a path without its folders. */
export function shortName(name) {
  return name.startsWith("/dev/") ? name : name.replace(/^\/.*\//, "");
}

/** Returns the labels that a band may have, the longest one first: its name, and whose it is. */
export function titlesOf(model, band) {
  const name = shortName(band.name);
  if (model.processes === 1) return [name];
  const process = model.facts.processes[band.process];
  return [`${process.name}/${process.pid} ${name}`, `${process.pid} ${name}`];
}

/** Returns text that fits some pixels, with an ellipsis. */
function shorten(pen, text, room) {
  if (pen.measureText(text).width <= room) return text;
  let length = text.length;
  while (length > 1 && pen.measureText(`${text.slice(0, length)}…`).width > room) length--;
  return `${text.slice(0, length)}…`;
}

function drawTimes(map, pen, state) {
  const theme = THEMES[state.theme];
  const { times, step } = ticks(state.view.from, state.view.to, map.width);
  pen.font = "12px system-ui, sans-serif";
  pen.textBaseline = "top";
  pen.textAlign = "center";
  pen.fillStyle = theme.soft;
  pen.strokeStyle = theme.line;
  line(pen, map.gutter, map.height, map.gutter + map.width, map.height);
  for (const time of times) {
    const x = map.gutter + map.xOf(state.view, time);
    line(pen, x, map.height, x, map.height + 4);
    pen.fillText(clock(time, step < 1), x, map.height + 8);
  }
}

/** Writes addresses beside the map as text that can be selected: on a narrow screen at its left. */
function drawAddresses(map, pen, state) {
  const narrow = map.gutter < 100;
  const least = narrow ? 2 * DIGITS : LABEL;
  const found = addressTicks(map.picture.rows.visible, map.rows, least * map.ratio);
  const edge = narrow ? map.gutter : map.gutter + map.width;
  pen.strokeStyle = THEMES[state.theme].soft;
  map.beside.className = narrow ? "narrow" : "";
  map.beside.style.left = narrow ? "0" : `${edge + 8}px`;
  map.beside.style.width = narrow ? `${edge - 7}px` : "";
  map.beside.replaceChildren(
    ...found.map(({ page, row }) => {
      const y = row / map.ratio;
      line(pen, narrow ? edge - 4 : edge, y, narrow ? edge : edge + 4, y);
      const text = address(page, map.model.facts.pageSize);
      const tick = document.createElement("span");
      for (const part of narrow ? linesOf(text) : [text]) {
        if (tick.childNodes.length) tick.append(document.createElement("wbr"));
        tick.append(part);
      }
      tick.style.top = `${y}px`;
      return tick;
    }),
  );
}
