// Builds what the parts of the page draw, from the decoded data.

import { divide, unpack } from "./decode.mjs";
import { areasOf, layout, renumber, touchedChunks } from "./layout.mjs";

const LONG = 3; // times as long as most looks: such a look is pointed out

/** Returns the model of a recording: looks, frames, regions and the layout of memory. */
export function modelOf(bytes) {
  const { facts, counts, packed } = divide(bytes);
  const { looks, mappings } = facts;
  const seconds = (times) => Float64Array.from(times, (time) => time / 1e6);
  looks.from = seconds(looks.from);
  looks.to = seconds(looks.to);
  const frames = {
    ...facts.frames,
    from: Float64Array.from(facts.frames.first, (look) => looks.from[look]),
    to: Float64Array.from(facts.frames.last, (look) => looks.to[look]),
  };
  const processes = facts.processes.length;
  const read = unpack(packed, frames, facts.level.unit);
  const pages = new Float64Array(mappings.length); // written, by mapping
  counts.mappings.forEach((mapping, at) => (pages[mapping] += counts.pages[at]));
  const sums = new Map();
  mappings.forEach(({ process, name }, mapping) => {
    const key = `${process} ${name}`;
    sums.set(key, (sums.get(key) ?? 0) + pages[mapping]);
  });
  const writtenOf = (process, name) => sums.get(`${process} ${name}`) ?? 0;
  const placed = layout(mappings, touchedChunks(read, frames, processes), writtenOf);
  const from = looks.from.reduce((one, other) => Math.min(one, other), Infinity);
  const to = looks.to.reduce((one, other) => Math.max(one, other), -Infinity);
  const lengths = looks.to.map((time, at) => time - looks.from[at]).sort();
  const shortest = lengths[0] ?? 1;
  const usual = lengths[lengths.length >> 1] ?? 1;
  return {
    facts,
    looks,
    mappings,
    counts,
    frames,
    processes,
    from: looks.to.length ? from : 0,
    to: looks.to.length ? Math.max(to, from + 1e-3) : 1,
    // By most looks: the last one is often shorter.
    fine: usual < 0.95,
    usual,
    leastTime: Math.max(Math.min(shortest, 1) * 4, 1e-3),
    segments: placed.segments,
    bands: placed.bands,
    pages: placed.pages,
    regions: renumber(read, frames, placed.segments),
  };
}

/**
 * Joins the mappings of a group that overlap: they are one at different times. Returns the
 * places, each with its pages, its written bytes and its last write, the most written first.
 */
function placesOf(members) {
  members.sort((a, b) => a.start - b.start);
  const places = [];
  let place = null;
  for (const { start, end, written, last } of members) {
    if (place && start < place.end) {
      place.end = Math.max(place.end, end);
      place.written += written;
      place.last = Math.max(place.last ?? last, last ?? place.last);
    } else places.push((place = { start, end, written, last }));
  }
  return places.sort((a, b) => b.written - a.written || a.start - b.start);
}

/** Returns where the pages [start, end) of a process are drawn, from 0 to 1; null: nowhere. */
export function drawnAt(model, process, start, end) {
  const own = model.segments.filter(
    (one) => one.process === process && one.start < end && one.end > start,
  );
  if (!own.length) return null;
  const at = (one, page) =>
    one.top + ((one.bottom - one.top) * (page - one.start)) / (one.end - one.start);
  const [first, last] = [own[0], own[own.length - 1]];
  return {
    top: at(first, Math.max(start, first.start)),
    bottom: at(last, Math.min(end, last.end)),
  };
}

/**
 * Returns the mappings by process and name, the most written ones first, each with the
 * places where it is.
 */
export function groupsOf(model) {
  model.groups ??= joined(model);
  return model.groups;
}

function joined(model) {
  const { looks, mappings, counts, facts } = model;
  const groups = new Map();
  const groupOf = (process, name) => {
    const key = `${process} ${name}`;
    if (!groups.has(key))
      groups.set(key, { process, name, size: 0, written: 0, last: null, bands: [], places: [] });
    return groups.get(key);
  };
  for (let process = 0; process < model.processes; process++)
    for (const area of areasOf(mappings.filter((one) => one.process === process)))
      groupOf(process, area.name).size += (area.end - area.start) * facts.pageSize;
  const own = mappings.map((one) => groupOf(one.process, one.name));
  const written = new Float64Array(mappings.length); // by mapping
  const last = mappings.map(() => null);
  for (let look = 0; look < looks.to.length; look++)
    for (let at = counts.offsets[look]; at < counts.offsets[look + 1]; at++) {
      const mapping = counts.mappings[at];
      const bytes = counts.pages[at] * facts.pageSize;
      written[mapping] += bytes;
      last[mapping] = looks.to[look];
      own[mapping].written += bytes;
      own[mapping].last = looks.to[look];
    }
  mappings.forEach(({ start, end }, at) =>
    own[at].places.push({ start, end, written: written[at], last: last[at] }),
  );
  for (const group of groups.values()) group.places = placesOf(group.places);
  for (const band of model.bands) groupOf(band.process, band.name).bands.push(band);
  return [...groups.values()].sort((a, b) => b.written - a.written);
}

/**
 * Returns the looks that lasted far longer than most, as after a stop of the recorder, and
 * found pages: how many, and the longest of them. They have the pages of all their time.
 */
export function longLooks({ looks, usual }) {
  let number = 0;
  let longest = null;
  for (let look = 0; look < looks.to.length; look++) {
    const seconds = looks.to[look] - looks.from[look];
    if (!isLong(seconds, usual) || !looks.pages[look]) continue;
    number++;
    if (!longest || seconds > longest.seconds) longest = { seconds, look };
  }
  return { number, longest };
}

/** Whether a look lasted far longer than most. */
export function isLong(seconds, usual) {
  return seconds > Math.max(LONG * usual, usual + 0.5);
}

/** Returns for each look the bytes per second that some mappings had written. */
export function rateOf(model, group) {
  const { looks, mappings, counts, facts } = model;
  const own = Uint8Array.from(
    mappings,
    (one) => one.process === group.process && one.name === group.name,
  );
  return looks.to.length
    ? Array.from(looks.to, (to, look) => {
        if (looks.process[look] !== group.process) return null;
        let pages = 0;
        for (let at = counts.offsets[look]; at < counts.offsets[look + 1]; at++)
          if (own[counts.mappings[at]]) pages += counts.pages[at];
        return (pages * facts.pageSize) / (to - looks.from[look]);
      })
    : [];
}

/** Returns the look that holds at a moment, of those with a value; null: there is none. */
export function lookAt({ to }, values, time) {
  let low = 0;
  let high = to.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (to[middle] >= time) high = middle;
    else low = middle + 1;
  }
  while (low < to.length && values[low] === null) low++;
  return low < to.length ? low : null;
}

/** Returns for each look the bytes per second that its process had written. */
export function totalRate(model, process) {
  const { looks, facts } = model;
  return Array.from(looks.to, (to, look) =>
    looks.process[look] === process
      ? (looks.pages[look] * facts.pageSize) / (to - looks.from[look])
      : null,
  );
}
