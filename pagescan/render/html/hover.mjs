// Says in words what a cell of the map shows.

import { address, clock, count, plural } from "./format.mjs";
import { framesAt, pagesOfRow, segmentAt, written } from "./raster.mjs";

/** Returns how many of the pages [start, end) of a process were mapped at some looks. */
export function mappedPages(model, process, start, end, first, last) {
  let pages = 0;
  for (const one of model.mappings)
    if (one.process === process && one.first <= last && one.last >= first)
      pages += Math.max(0, Math.min(end, one.end) - Math.max(start, one.start));
  return Math.min(pages, end - start);
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
  const mapped = mappedPages(
    model, segment.process, start, end, frames.first[first], frames.last[last],
  );
  const numbers = found.map((frame) => written(model.regions, frame, low, high));
  const sum = numbers.reduce((total, number) => total + number, 0);
  lines.push(looksOf(frames.first[first], frames.last[last]));
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

function nameOf(process) {
  return `${process.name} (${process.pid})`;
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
