// Builds what the parts of the page draw, from the decoded data.

import { divide, unpack } from "./decode.mjs";
import { areasOf, layout, renumber, touchedChunks } from "./layout.mjs";

/** Returns the model of a recording: looks, frames, regions and the layout of memory. */
export function modelOf(bytes) {
  const { facts, packed } = divide(bytes);
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
  const read = unpack(packed, frames, facts.level.unit > 1);
  const sums = new Map();
  looks.mappings.forEach((indices, look) =>
    indices.forEach((mapping, at) => {
      const key = `${mappings[mapping].process} ${mappings[mapping].name}`;
      sums.set(key, (sums.get(key) ?? 0) + looks.counts[look][at]);
    }),
  );
  const writtenOf = (process, name) => sums.get(`${process} ${name}`) ?? 0;
  const placed = layout(mappings, touchedChunks(read, frames, processes), writtenOf);
  const from = looks.from.reduce((one, other) => Math.min(one, other), Infinity);
  const to = looks.to.reduce((one, other) => Math.max(one, other), -Infinity);
  const shortest = looks.to.reduce(
    (least, time, at) => Math.min(least, time - looks.from[at]),
    Infinity,
  );
  return {
    facts,
    looks,
    mappings,
    frames,
    processes,
    from: looks.to.length ? from : 0,
    to: looks.to.length ? Math.max(to, from + 1e-3) : 1,
    fine: shortest < 0.95,
    leastTime: Math.max(Math.min(shortest, 1) * 4, 1e-3),
    segments: placed.segments,
    bands: placed.bands,
    pages: placed.pages,
    regions: renumber(read, frames, placed.segments),
  };
}

/** Returns the mappings by process and name, the most written ones first. */
export function groupsOf(model) {
  const { looks, mappings, facts } = model;
  const groups = new Map();
  const groupOf = (process, name) => {
    const key = `${process} ${name}`;
    if (!groups.has(key))
      groups.set(key, { process, name, size: 0, written: 0, last: null, bands: [] });
    return groups.get(key);
  };
  for (let process = 0; process < model.processes; process++)
    for (const area of areasOf(mappings.filter((one) => one.process === process)))
      groupOf(process, area.name).size += (area.end - area.start) * facts.pageSize;
  const own = mappings.map((one) => groupOf(one.process, one.name));
  looks.mappings.forEach((indices, look) =>
    indices.forEach((mapping, at) => {
      own[mapping].written += looks.counts[look][at] * facts.pageSize;
      own[mapping].last = looks.to[look];
    }),
  );
  for (const band of model.bands) groupOf(band.process, band.name).bands.push(band);
  return [...groups.values()].sort((a, b) => b.written - a.written);
}

/** Returns for each look the bytes per second that some mappings had written. */
export function rateOf(model, group) {
  const { looks, mappings, facts } = model;
  const own = mappings.map((one) => one.process === group.process && one.name === group.name);
  return looks.to.length
    ? Array.from(looks.to, (to, look) => {
        if (looks.process[look] !== group.process) return null;
        let pages = 0;
        looks.mappings[look].forEach((mapping, at) => {
          if (own[mapping]) pages += looks.counts[look][at];
        });
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
