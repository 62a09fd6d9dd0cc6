// Places memory on the vertical axis: bands of mappings, cut where nothing was ever written.

const CHUNK = 512; // pages: memory is drawn in parts of 2 MiB if a page of them was written
const SMALL_HOLE = 2048; // pages: a hole up to that size is drawn and not cut out
const MOST_CHUNKS = 1 << 20; // of a region: 2 TiB, more than any memory that was written
const RECENT = 1 << 14; // chunks that are known to be in the set, by their lowest bits
const LABELLED = 10; // bands, of the most written names, that are high enough for a label
const LABEL_HEIGHT = 0.036; // of the height
const LEAST_HEIGHT = 0.008; // of any other band

/** Returns the numbers of the chunks that a process ever wrote, per process. */
export function touchedChunks(regions, frames, processes) {
  const touched = Array.from({ length: processes }, () => new Set());
  const recent = Array.from({ length: processes }, () => new Float64Array(RECENT).fill(-1));
  const { starts, ends, offsets } = regions;
  for (let frame = 0; frame < frames.process.length; frame++) {
    const chunks = touched[frames.process[frame]];
    const known = recent[frames.process[frame]];
    let last = -1;
    for (let row = offsets[frame]; row < offsets[frame + 1]; row++) {
      let chunk = Math.floor(starts[row] / CHUNK);
      const end = Math.min(Math.floor((ends[row] - 1) / CHUNK), chunk + MOST_CHUNKS);
      if (chunk === last) chunk++;
      for (; chunk <= end; chunk++) {
        const place = chunk & (RECENT - 1);
        if (known[place] === chunk) continue;
        known[place] = chunk;
        chunks.add(chunk);
      }
      last = end;
    }
  }
  return touched.map((chunks) => Float64Array.from(chunks).sort());
}

/**
 * Returns disjoint areas, ascending, each with the mapping that lived longest there.
 * Mappings of different times may overlap.
 */
export function areasOf(mappings) {
  const edges = [];
  mappings.forEach((one) => edges.push([one.start, 1, one], [one.end, 0, one]));
  edges.sort((a, b) => a[0] - b[0] || a[1] - b[1]);
  const alive = new Set();
  const areas = [];
  let from = 0;
  for (const [page, begins, mapping] of edges) {
    if (alive.size && page > from) {
      let best = null;
      for (const one of alive)
        if (!best || one.last - one.first > best.last - best.first) best = one;
      const previous = areas[areas.length - 1];
      if (previous && previous.end === from && previous.name === best.name) previous.end = page;
      else areas.push({ start: from, end: page, name: best.name });
    }
    from = page;
    if (begins) alive.add(mapping);
    else alive.delete(mapping);
  }
  return areas;
}

/** Returns the written parts of some areas: whole chunks, without the large holes. */
function partsOf(areas, chunks, hole) {
  const parts = [];
  let at = 0;
  for (const area of areas) {
    while (at < chunks.length && (chunks[at] + 1) * CHUNK <= area.start) at++;
    let part = null;
    for (let next = at; next < chunks.length && chunks[next] * CHUNK < area.end; next++) {
      const start = Math.max(area.start, chunks[next] * CHUNK);
      const end = Math.min(area.end, (chunks[next] + 1) * CHUNK);
      if (part && start - part.end <= hole) part.end = end;
      else {
        part = { start: start - area.start <= hole ? area.start : start, end, area };
        parts.push(part);
      }
    }
    if (part && area.end - part.end <= hole) part.end = area.end;
  }
  return parts;
}

/** Returns areas for chunks that no mapping covers: it was gone before the look ended. */
function orphans(areas, chunks) {
  const extra = [];
  let at = 0;
  for (const chunk of chunks) {
    const start = chunk * CHUNK;
    while (at < areas.length && areas[at].end <= start) at++;
    if (at < areas.length && areas[at].start < start + CHUNK) continue;
    extra.push({ start, end: start + CHUNK, name: "unmapped before the look ended" });
  }
  return [...areas, ...extra].sort((a, b) => a.start - b.start);
}

/**
 * Returns bands and segments. A segment is memory that is drawn in one piece: its pages are
 * numbered through, `first` to `first + end - start`, and it lies at [top, bottom) of [0, 1).
 * `writtenOf` tells how much was written in mappings of a name: without a write they are left out.
 */
export function layout(mappings, touched, writtenOf) {
  const bands = [];
  const segments = [];
  let first = 0;
  touched.forEach((chunks, process) => {
    const own = areasOf(mappings.filter((one) => one.process === process));
    const areas = orphans(own.filter((area) => writtenOf(process, area.name) > 0), chunks);
    const hole = Math.max(SMALL_HOLE, chunks.length * CHUNK * 0.02);
    for (const { start, end, area } of partsOf(areas, chunks, hole)) {
      let band = bands[bands.length - 1];
      if (!band || band.process !== process || band.name !== area.name) {
        band = { process, name: area.name, pages: 0, index: bands.length, segments: [] };
        bands.push(band);
      }
      const segment = { process, band, start, end, first, top: 0, bottom: 0 };
      band.pages += end - start;
      band.segments.push(segment);
      segments.push(segment);
      first += end - start;
    }
  });
  place(bands, first, writtenOf);
  return { bands, segments, pages: first };
}

/** Returns the bands that get a label: the largest one of each of the most written names. */
function labelled(bands, writtenOf) {
  const largest = new Map();
  for (const band of bands) {
    const key = `${band.process} ${band.name}`;
    if (!(largest.get(key)?.pages >= band.pages)) largest.set(key, band);
  }
  const written = (band) => writtenOf(band.process, band.name);
  return new Set([...largest.values()].sort((a, b) => written(b) - written(a)).slice(0, LABELLED));
}

/** Gives each band its height: a small minimum, and the rest by its number of pages. */
function place(bands, pages, writtenOf) {
  const most = labelled(bands, writtenOf);
  const other = Math.min(LEAST_HEIGHT, 0.3 / bands.length);
  const rest = 1 - LABEL_HEIGHT * most.size - other * (bands.length - most.size);
  let top = 0;
  for (const band of bands) {
    band.top = top;
    const height = (most.has(band) ? LABEL_HEIGHT : other) + (rest * band.pages) / pages;
    let done = 0;
    for (const segment of band.segments) {
      segment.top = top + (height * done) / band.pages;
      done += segment.end - segment.start;
      segment.bottom = top + (height * done) / band.pages;
    }
    top += height;
    band.bottom = top;
  }
}

/** Replaces addresses by the numbers of the layout; returns columns of 32 bits. */
export function renumber(regions, frames, segments) {
  const { offsets, weights } = regions;
  const [firsts, behinds] = [regions.starts, regions.ends];
  const starts = new Uint32Array(firsts.length);
  const ends = new Uint32Array(firsts.length);
  for (let frame = 0; frame < frames.process.length; frame++) {
    const own = segments.filter((one) => one.process === frames.process[frame]);
    if (!own.length) continue;
    let at = 0;
    let { start, end, first } = own[0];
    for (let row = offsets[frame]; row < offsets[frame + 1]; row++) {
      const page = firsts[row];
      const last = behinds[row] - 1;
      while (page >= end && at < own.length - 1) ({ start, end, first } = own[++at]);
      const begins = page >= start && page < end ? first + page - start : -1;
      while (last >= end && at < own.length - 1) ({ start, end, first } = own[++at]);
      const ending = last >= start && last < end ? first + last - start : -1;
      if (begins < 0 && ending < 0) {
        // An empty row: nothing is drawn there.
        starts[row] = ends[row] = row > offsets[frame] ? ends[row - 1] : 0;
        continue;
      }
      starts[row] = begins < 0 ? ending : begins;
      ends[row] = (ending < 0 ? begins : ending) + 1;
    }
  }
  return { starts, ends, weights, offsets };
}
