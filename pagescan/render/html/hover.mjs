// Says in words what a cell of the map shows.

import { address, clock, count, duration, nameOf, plural, size } from "./format.mjs";
import { isLong } from "./model.mjs";
import { framesAt, pagesOfRow, segmentAt, written } from "./raster.mjs";

/**
 * Returns how many of the pages [start, end) of a process were mapped at some looks, the
 * mapping that most of them are in, and how many others have some of them.
 */
export function mappedPages(model, process, start, end, first, last) {
  let pages = 0;
  let others = -1;
  let most = { one: null, inside: 0 };
  for (const one of model.mappings) {
    if (one.process !== process || one.first > last || one.last < first) continue;
    const inside = Math.min(end, one.end) - Math.max(start, one.start);
    if (inside <= 0) continue;
    pages += inside;
    others++;
    if (inside >= most.inside) most = { one, inside }; // of two times, the later one
  }
  return { pages: Math.min(pages, end - start), mapping: most.one, others: Math.max(others, 0) };
}

/** Returns the line about the mapping of a cell: the whole of it, and what else is there. */
function lineOf({ mapping, others }, place, pageSize) {
  const name = mapping.name === place ? "mapping" : mapping.name;
  const range = `${address(mapping.start, pageSize)} – ${address(mapping.end, pageSize)}`;
  const more = others ? `, and ${plural(others, "other mapping")}` : "";
  return `${name} ${range}, ${size((mapping.end - mapping.start) * pageSize)}${more}`;
}

/**
 * Returns the words for a cell: a headline and lines below it; null: no memory is there.
 * `picture` is the result of raster().
 */
export function describe(model, picture, column, row) {
  const one = segmentAt(picture.rows.visible, row);
  if (!one) return null;
  const { segment } = one;
  const [low, high] = pagesOfRow(one, row);
  const start = segment.start + low - segment.first;
  const end = start + high - low;
  const found = framesAt(model, picture.columns, segment.process, column);
  const { facts, frames } = model;
  const lines = [
    `${address(start, facts.pageSize)} – ${address(end, facts.pageSize)}`,
    ...(facts.processes.length > 1 ? [nameOf(facts.processes[segment.process])] : []),
  ];
  const place = segment.band.name;
  if (!found.length) return { headline: `no look here, ${place}`, lines };
  const first = found[0];
  const last = found[found.length - 1];
  const there = mappedPages(
    model, segment.process, start, end, frames.first[first], frames.last[last],
  );
  const numbers = found.map((frame) => written(model.regions, frame, low, high));
  const sum = numbers.reduce((total, number) => total + number, 0);
  const mapped = there.pages;
  if (mapped) lines.splice(1, 0, lineOf(there, place, facts.pageSize));
  const seconds = frames.to[first] - frames.from[first];
  const single = frames.first[first] === frames.last[last];
  const long = single && isLong(seconds, model.usual) ? `, of ${duration(seconds)}` : "";
  lines.push(`${looksOf(frames.first[first], frames.last[last])}${long}`);
  const when = whenOf(model, first, last);
  if (!mapped && !sum) return { headline: `not mapped ${when}, ${place}`, lines };
  const of = plural(Math.max(mapped, Math.ceil(sum / found.length)), "page");
  const about = facts.level.unit > 1 ? "about " : "";
  const headline =
    found.length === 1
      ? `${about}${count(sum)} of ${of} written ${when}, ${place}`
      : `${decimal(sum / found.length)} of ${of} written per look ${when}, ${place}`;
  return { headline, lines };
}

function decimal(number) {
  return number < 100 ? String(Number(number.toFixed(1))) : count(number);
}

function looksOf(first, last) {
  return first === last ? `look ${count(first + 1)}` : `looks ${count(first + 1)}–${count(last + 1)}`;
}

function whenOf(model, first, last) {
  const { frames, fine } = model;
  const end = clock(frames.to[last], fine);
  if (first === last && frames.first[first] === frames.last[last]) return `at ${end}`;
  return `${clock(frames.from[first], fine)}–${end}`;
}
