// Counts the written pages of each cell of the map, and of the cell under the pointer.

const BRIEF = 0.5; // of a look: a shorter gap behind it has no look of its own

/**
 * Returns the columns that each frame covers in a picture: the first one, and their end.
 * A column belongs to the frame at its middle, as the cursor of all parts does.
 */
export function columnsOf(frames, view, width) {
  const scale = width / (view.to - view.from);
  const first = new Int32Array(frames.from.length);
  const end = new Int32Array(frames.from.length);
  for (let frame = 0; frame < first.length; frame++) {
    const column = Math.ceil((frames.from[frame] - view.from) * scale - 0.5);
    end[frame] = Math.max(Math.ceil((frames.to[frame] - view.from) * scale - 0.5), column + 1);
    first[frame] = end[frame] > 0 ? Math.max(column, 0) : column;
  }
  // The looks of a busy machine come late and early, by their own clocks: that is no gap.
  const { process, from, to } = frames;
  for (let frame = 1; frame < first.length; frame++) {
    const before = frame - 1;
    const gap = first[frame] - end[before];
    if (gap <= 0 || process[frame] !== process[before]) continue;
    const brief = from[frame] - to[before] < BRIEF * (to[before] - from[before]);
    if (gap === 1 || brief) first[frame] = end[frame] > 0 ? Math.max(end[before], 0) : end[before];
  }
  return { first, end };
}

/** Returns the rows of each visible segment, and how many pages and whose a row shows. */
export function rowsOf(segments, view, height) {
  const scale = height / (view.bottom - view.top);
  const pages = new Float64Array(height);
  const process = new Int32Array(height).fill(-1);
  const visible = [];
  for (const segment of segments) {
    if (segment.bottom <= view.top || segment.top >= view.bottom) continue;
    const from = Math.round((segment.top - view.top) * scale);
    const to = Math.max(Math.round((segment.bottom - view.top) * scale), from + 1);
    const count = segment.end - segment.start;
    const one = { segment, from, to, perPage: (to - from) / count, end: segment.first + count };
    visible.push(one);
    for (let row = Math.max(from, 0); row < Math.min(to, height); row++) {
      const [low, high] = pagesOfRow(one, row);
      pages[row] += high - low;
      process[row] = segment.process;
    }
  }
  return { visible, pages, process };
}

/** Returns the pages that a row of a segment shows: one at least. */
export function pagesOfRow({ segment, from, perPage, end }, row) {
  if (perPage >= 1) {
    const page = segment.first + Math.floor((row - from) / perPage + 1e-9);
    return [page, Math.min(page + 1, end)];
  }
  const low = segment.first + Math.ceil((row - from) / perPage - 1e-9);
  const high = segment.first + Math.ceil((row - from + 1) / perPage - 1e-9);
  return [low, Math.min(high, end)];
}

/** Returns the first of the rows [low, high) of a frame whose region ends behind a page. */
function firstBehind(ends, low, high, page) {
  while (low < high) {
    const middle = (low + high) >> 1;
    if (ends[middle] > page) high = middle;
    else low = middle + 1;
  }
  return low;
}

/** Adds the part of a region in a segment to the column of cells that begins at `base`. */
function add(cells, base, height, one, low, high, density) {
  const { segment, from, perPage } = one;
  if (perPage >= 1) {
    const first = from + Math.ceil((low - segment.first) * perPage - 1e-9);
    const end = from + Math.ceil((high - segment.first) * perPage - 1e-9);
    for (let row = Math.max(first, 0); row < Math.min(end, height); row++)
      cells[base + row] += density;
    return;
  }
  const first = rowOfPage(one, low);
  const last = rowOfPage(one, high - 1);
  if (first === last) {
    if (first >= 0 && first < height) cells[base + first] += (high - low) * density;
    return;
  }
  for (let row = Math.max(first, 0); row <= Math.min(last, height - 1); row++) {
    const [start, end] = pagesOfRow(one, row);
    cells[base + row] += (Math.min(high, end) - Math.max(low, start)) * density;
  }
}

/** Returns the row that shows a page, where rows show several. */
function rowOfPage({ segment, from, perPage }, page) {
  return from + Math.floor((page - segment.first) * perPage + 1e-9);
}

/**
 * Returns the cells of a picture, column by column: the share of their pages that a frame
 * found written, on average of the frames in a column; -1 where there was no look.
 */
export function raster(data, view, width, height) {
  const { regions, frames, segments, processes } = data;
  const columns = columnsOf(frames, view, width);
  const rows = rowsOf(segments, view, height);
  const cells = new Float32Array(width * height);
  const looks = new Uint32Array(width * processes);
  const source = new Int32Array(width * processes).fill(-1);
  const seen = rows.visible;
  for (let frame = 0; frame < frames.from.length; frame++) {
    if (columns.end[frame] <= 0 || columns.first[frame] >= width) continue;
    const column = columns.first[frame];
    const own = frames.process[frame] * width;
    for (let at = column; at < Math.min(columns.end[frame], width); at++)
      source[own + at] = column;
    looks[own + column]++;
    const { starts, ends, weights, offsets } = regions;
    let at = 0;
    while (at < seen.length && seen[at].segment.process !== frames.process[frame]) at++;
    if (at === seen.length) continue;
    let row = firstBehind(ends, offsets[frame], offsets[frame + 1], seen[at].segment.first);
    for (; row < offsets[frame + 1] && at < seen.length; row++) {
      if (starts[row] === ends[row]) continue;
      const density = weights[row] / (ends[row] - starts[row]);
      while (at < seen.length && seen[at].end <= starts[row]) at++;
      for (let next = at; next < seen.length && seen[next].segment.first < ends[row]; next++) {
        const low = Math.max(starts[row], seen[next].segment.first);
        const high = Math.min(ends[row], seen[next].end);
        add(cells, column * height, height, seen[next], low, high, density);
      }
    }
  }
  return { cells: average(cells, looks, source, rows, width, height), columns, rows };
}

/** Divides sums by pages and looks; a look that covers several columns is in each. */
function average(sums, looks, source, rows, width, height) {
  const shares = new Float32Array(width * height).fill(-1);
  for (let column = 0; column < width; column++) {
    for (let row = 0; row < height; row++) {
      const own = rows.process[row] * width;
      const from = rows.process[row] < 0 ? -1 : source[own + column];
      if (from < 0) continue;
      const whole = rows.pages[row] * looks[own + from];
      shares[column * height + row] = Math.min(sums[from * height + row] / whole, 1);
    }
  }
  return shares;
}

/** Returns how many of the pages [low, high) a frame found written. */
export function written(regions, frame, low, high) {
  const { starts, ends, weights, offsets } = regions;
  let sum = 0;
  let row = firstBehind(ends, offsets[frame], offsets[frame + 1], low);
  for (; row < offsets[frame + 1] && starts[row] < high; row++) {
    if (starts[row] === ends[row]) continue;
    const part = Math.min(ends[row], high) - Math.max(starts[row], low);
    sum += (part * weights[row]) / (ends[row] - starts[row]);
  }
  return sum;
}

/** Returns the segment of a place in memory from 0 to 1; null: there is none. */
export function segmentAt(visible, row) {
  return visible.find((one) => one.from <= row && row < one.to) ?? null;
}

/** Returns the frames of a process that share a column with a moment, ascending. */
export function framesAt(data, columns, process, column) {
  const found = [];
  const { frames } = data;
  let covering = -1;
  for (let frame = 0; frame < frames.from.length; frame++) {
    if (frames.process[frame] !== process) continue;
    if (columns.first[frame] === column) found.push(frame);
    else if (columns.first[frame] < column && columns.end[frame] > column) covering = frame;
  }
  return found.length || covering < 0 ? found : [covering];
}
