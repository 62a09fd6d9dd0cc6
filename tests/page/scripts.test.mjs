// Units of the page's scripts. Run by tests/unit/test_page_scripts.py, or: node --test tests/page
import assert from "node:assert/strict";
import { test } from "node:test";

import { addressTicks, linesOf } from "../../pagescan/render/html/addresses.mjs";
import { LOWEST, paint, placeOf, table } from "../../pagescan/render/html/colour.mjs";
import { bytesOf, inflate, unpack } from "../../pagescan/render/html/decode.mjs";
import { address, clock, count, duration, middle, percent, roundStep, size, ticks } from "../../pagescan/render/html/format.mjs";
import { describe } from "../../pagescan/render/html/hover.mjs";
import { chartsOf, dataOf as columnsOfChart } from "../../pagescan/render/html/lines.mjs";
import { areasOf } from "../../pagescan/render/html/layout.mjs";
import { drawnAt, groupsOf, lookAt, modelOf, rateOf } from "../../pagescan/render/html/model.mjs";
import { titlesOf } from "../../pagescan/render/html/map.mjs";
import { columnsOf, pagesOfRow, raster, rowsOf, written } from "../../pagescan/render/html/raster.mjs";
import { figuresOf, notesOf, writerTexts } from "../../pagescan/render/html/tables.mjs";
import { clamp, pan, whole, zoomMemory, zoomTime } from "../../pagescan/render/html/view.mjs";

const PAGE = 4096;

/** Returns numbers in the packed form. */
function varints(numbers) {
  const bytes = [];
  for (let number of numbers) {
    while (number >= 128) {
      bytes.push((number % 128) + 128);
      number = Math.floor(number / 128);
    }
    bytes.push(number);
  }
  return bytes;
}

/** Returns the data of a page: `looks` has ascending [start, end) runs of pages each. */
function dataOf(looks, mappings, change = {}) {
  const packed = looks.flatMap((runs) => {
    let at = 0;
    return varints(
      runs.flatMap(([start, end]) => {
        const gap = start - at;
        at = end;
        const size = (end - start - 1) * 2;
        return change.level ? [gap, size + 1, end - start] : [gap, size];
      }),
    );
  });
  const each = (value) => looks.map((_, at) => value(at));
  const sum = (runs) => runs.reduce((total, [start, end]) => total + end - start, 0);
  /** Returns the mappings that have pages of some runs, and how many. */
  const insides = (runs, look) =>
    mappings
      .map((one, at) => [
        at,
        runs.reduce((total, [start, end]) => total + Math.max(0, Math.min(end, one.end) - Math.max(start, one.start)), 0),
      ])
      .filter(([at, pages]) => pages && mappings[at].first <= look && look <= mappings[at].last);
  const found = looks.map(insides);
  const entries = found.flat();
  const counts = [
    ...found.map((one) => one.length), // in each look
    ...entries.map(([at]) => at),
    ...entries.map(([, pages]) => pages % 256),
    ...entries.map(([, pages]) => pages >> 8),
  ];
  const facts = {
    host: "h", kernel: "6.12", version: "0", pageSize: PAGE, budget: null, notes: [],
    level: { looks: 1, unit: 1 },
    processes: [{ pid: 1, name: "one", ending: null }],
    mappings,
    looks: {
      process: each(() => 0), from: each((at) => at * 1e6), to: each((at) => (at + 1) * 1e6),
      pages: looks.map(sum), resident: each(() => null), share: each(() => null), used: each(() => null),
      written: { entries: entries.length, planes: [1, 1, 2] },
    },
    frames: {
      process: each(() => 0), first: each((at) => at), last: each((at) => at),
      regions: looks.map((runs) => runs.length),
    },
    ...change,
  };
  const text = new TextEncoder().encode(JSON.stringify(facts));
  const bytes = new Uint8Array(4 + text.length + counts.length + packed.length);
  new DataView(bytes.buffer).setUint32(0, text.length, true);
  bytes.set(text, 4);
  bytes.set(counts, 4 + text.length);
  bytes.set(packed, 4 + text.length + counts.length);
  return bytes;
}

const mapping = (start, end, name = "[heap]", first = 0, last = 999, process = 0) => ({
  process, start, end, name, first, last,
});

test("base64 gives its bytes, with and without the browser's own function", async () => {
  const all = Uint8Array.from({ length: 256 }, (_, at) => at);
  assert.deepEqual(bytesOf(Buffer.from(all).toString("base64")), all);
});

test("zlib's data is inflated", async () => {
  const { deflateSync } = await import("node:zlib");
  const all = Uint8Array.from({ length: 100000 }, (_, at) => at % 251);
  assert.deepEqual(await inflate(deflateSync(all)), all);
});

test("packed regions of the highest addresses are exact", () => {
  const high = 2 ** 52 - 10; // the last pages of 64 bits
  const packed = Uint8Array.from(varints([7, 2, 0, 1, 5, high - 9, 4 * 2]));
  const read = unpack(packed, { regions: [2, 0, 1] }, 1);
  assert.deepEqual([...read.starts], [7, 9, high - 9]);
  assert.deepEqual([...read.ends], [9, 10, high - 4]);
  assert.deepEqual([...read.weights], [2, 1, 5]);
  assert.deepEqual([...read.offsets], [0, 2, 2, 3]);
});

test("a region of several units has the written pages of all of them", () => {
  const packed = Uint8Array.from(varints([16, 15 * 2 + 1, 9, 32, 47 * 2 + 1, 3, 0, 15 * 2 + 1, 16]));
  const read = unpack(packed, { regions: [3] }, 16);
  assert.deepEqual([...read.starts], [16, 64, 112]);
  assert.deepEqual([...read.ends], [32, 112, 128]);
  assert.deepEqual([...read.weights], [9, 9, 16]);
});

test("numbers are written for people", () => {
  assert.equal(size(0), "0 B");
  assert.equal(size(1536), "1.5 KiB");
  assert.equal(size(300 * 2 ** 20), "300 MiB");
  assert.equal(count(1234567), "1,234,567");
  assert.equal(percent(0.00052), "0.05 %");
  assert.equal(percent(1), "100 %");
  assert.equal(clock(3723.5), "01:02:03");
  assert.equal(clock(3723.5, true), "01:02:03.500");
  assert.equal(duration(90), "90 s");
  assert.equal(duration(86400), "24 h");
  assert.equal(address(0x7ffff, PAGE), "0x7ffff000");
});

test("addresses beside the map are where memory begins, and round ones between", () => {
  const one = (start, end, from, to) => ({
    segment: { start, end }, from, to, perPage: (to - from) / (end - start),
  });
  const ticksOf = (visible, rows) => addressTicks(visible, rows, 16).map(({ page, row }) => [page, row]);
  // A small segment gives way to a large one, and a round address to both.
  assert.deepEqual(ticksOf([one(0x1003, 0x1013, 0, 8), one(0x2001, 0x2401, 8, 264)], 300), [
    [0x2001, 8], [0x2100, 71], [0x2200, 135], [0x2300, 199], [0x2400, 263],
  ]);
  // Of a segment that begins above the map there are only round ones; a page has 100 rows.
  assert.deepEqual(ticksOf([one(0x1001, 0x1101, -450, 25150)], 300), [
    [0x1006, 50], [0x1007, 150], [0x1008, 250],
  ]);
  assert.deepEqual(ticksOf([], 300), []);
  assert.deepEqual(linesOf("0x7f2a40001000"), ["0x7f2a", "40001000"]);
  assert.deepEqual(linesOf("0x40001000"), ["0x40001000"]);
});

test("ticks are round, and none is cut at the end", () => {
  const { times, step } = ticks(3, 603, 600);
  assert.equal(step, 120);
  assert.deepEqual(times, [120, 240, 360, 480]);
  assert.equal(roundStep(150 * 2 ** 20, 4, 1024), 50 * 2 ** 20);
  assert.equal(roundStep(0.012, 4, 1000), 0.005);
});

test("overlapping mappings of different times give disjoint areas", () => {
  const areas = areasOf([mapping(0, 10, "a", 0, 5), mapping(5, 20, "b", 6, 99), mapping(20, 30, "b", 0, 1)]);
  assert.deepEqual(areas, [
    { start: 0, end: 5, name: "a" },
    { start: 5, end: 30, name: "b" },
  ]);
});

test("memory that was never written is left out, and nothing that was", () => {
  const far = 2 ** 20;
  const looks = [[[10, 12], [far, far + 1]], [[far * 3, far * 3 + 1]]];
  const mappings = [mapping(0, 100, "a"), mapping(far - 5, far * 2, "b"), mapping(far * 3, far * 3 + 4, "c"), mapping(far * 4, far * 5, "d")];
  const model = modelOf(dataOf(looks, mappings));
  assert.deepEqual(model.bands.map((band) => band.name), ["a", "b", "c"]);
  assert.ok(model.pages < 2000, `${model.pages} pages are shown`);
  assert.equal(model.bands[0].top, 0);
  assert.ok(Math.abs(model.bands[2].bottom - 1) < 1e-9);
  const shown = [0, 1].map((frame) => written(model.regions, frame, 0, model.pages));
  assert.deepEqual(shown, [3, 1]);
});

test("a mapping beside a written one has no band, if none of its pages was written", () => {
  const model = modelOf(dataOf([[[10, 12]]], [mapping(0, 20, "a"), mapping(20, 40, "b")]));
  assert.deepEqual(model.bands.map((band) => band.name), ["a"]);
  assert.equal(written(model.regions, 0, 0, model.pages), 2);
});

test("of many bands, the most written ones have room for a label", () => {
  const mappings = Array.from({ length: 60 }, (_, at) => mapping(at * 5000, at * 5000 + 4, `m${at}`));
  const looks = Array.from({ length: 40 }, (_, look) =>
    mappings.filter((_, at) => at < 3 || look === 0).map((one) => [one.start, one.end]),
  );
  const { bands } = modelOf(dataOf(looks, mappings));
  assert.equal(bands.length, 60);
  const heights = bands.map((band) => band.bottom - band.top);
  assert.ok(Math.min(...heights.slice(0, 3)) > 0.036);
  assert.ok(heights.every((height) => height > 0.004));
  assert.ok(Math.abs(bands[59].bottom - 1) < 1e-9);
});

test("a page without a mapping has a band of its own", () => {
  const model = modelOf(dataOf([[[5000, 5002]]], [mapping(0, 10, "a")]));
  assert.deepEqual(model.bands.map((band) => band.name), ["unmapped before the look ended"]);
  assert.equal(written(model.regions, 0, 0, model.pages), 2);
});

/** Returns a repeatable random number below a limit. */
function dice(seed) {
  let state = seed;
  return (limit) => {
    state = (state * 1103515245 + 12345) % 2147483648;
    return Math.floor((state / 2147483648) * limit);
  };
}

/** Returns random looks at some pages, as runs. */
function randomLooks(roll, looks, start, pages) {
  return Array.from({ length: looks }, () => {
    const runs = [];
    for (let at = start + roll(9); at < start + pages - 10; at += 1 + roll(40)) {
      const end = at + 1 + roll(9);
      runs.push([at, end]);
      at = end;
    }
    return runs;
  });
}

test("the cells of any view have the shares that a plain count gives", () => {
  for (let seed = 1; seed <= 40; seed++) {
    const roll = dice(seed);
    const pages = 20 + roll(3000);
    const looks = randomLooks(roll, 1 + roll(12), 1000, pages);
    const model = modelOf(dataOf(looks, [mapping(1000, 1000 + pages)]));
    const [width, height] = [1 + roll(30), 1 + roll(60)];
    let view = whole(model.from, model.to);
    if (roll(2)) view = zoomTime(view, 0.2 + roll(7) / 10, roll(looks.length));
    if (roll(2)) view = zoomMemory(view, 0.05 + roll(9) / 10, roll(10) / 10);
    view = clamp(view, whole(model.from, model.to), model.leastTime);
    const { cells, rows, columns } = raster(model, view, width, height);
    const [one] = rows.visible;
    for (let column = 0; column < width; column++) {
      const own = looks.map((_, at) => at).filter((at) => columns.first[at] === column);
      const covering = own.length ? own : looks.map((_, at) => at).filter((at) => columns.first[at] < column && columns.end[at] > column);
      if (!covering.length) continue;
      for (let row = 0; row < height; row++) {
        const [low, high] = pagesOfRow(one, row);
        const start = 1000 + low - one.segment.first;
        const all = own.length ? own : [covering[covering.length - 1]];
        const counts = all.map((look) => {
          let sum = 0;
          for (const [from, to] of looks[look])
            for (let page = from; page < to; page++) if (page >= start && page < start + high - low) sum++;
          return sum;
        });
        const share = counts.reduce((a, b) => a + b, 0) / (all.length * (high - low));
        assert.ok(Math.abs(cells[column * height + row] - share) < 1e-5, `seed ${seed}, cell ${column} ${row}: ${cells[column * height + row]}, not ${share}`);
      }
    }
  }
});

test("two looks touch, though one ends some milliseconds before the next begins", () => {
  const frames = { from: [0, 1.004, 5, 6], to: [1, 2, 6, 6.5], process: [0, 0, 0, 1] };
  for (const brief of [1.004, 1.09]) {
    frames.from[1] = brief;
    const { first, end } = columnsOf(frames, { from: 0, to: 6 }, 6 * 249.8);
    assert.equal(first[1], end[0]);
    assert.ok(first[2] - end[1] > 700);
  }
});

test("the cursor of all parts is in the look whose column it is in", () => {
  const from = Array.from({ length: 97 }, (_, at) => at * 1.013);
  const to = from.map((time) => time + 1.013);
  const view = { from: 0, to: to.at(-1) };
  const width = 613;
  const { first, end } = columnsOf({ from, to, process: from.map(() => 0) }, view, width);
  for (let column = 0; column < width; column++) {
    const time = ((column + 0.5) / width) * view.to;
    const look = lookAt({ to }, to, time);
    assert.ok(first[look] <= column && column < end[look], `column ${column}, look ${look}`);
  }
});

test("the legend of a chart tells the whole while the pointer is nowhere", () => {
  const looks = [[[0, 4]], [[0, 1]], [[0, 1], [50, 51]]];
  const model = modelOf(dataOf(looks, [mapping(0, 8, "[heap]"), mapping(50, 58, "/lib/libc.so.6")]));
  const [rates] = chartsOf(model);
  assert.deepEqual(rates.lines.map((line) => line.label), ["all memory", "[heap]", "libc.so.6"]);
  const means = rates.lines.map((line) => rates.rest.of(line.values));
  const pages = (count) => (count * PAGE) / (model.to - model.from);
  means.forEach((value, at) => assert.ok(Math.abs(value / pages([7, 6, 1][at]) - 1) < 1e-6));
});

test("rows are divided among segments without a page that is in none", () => {
  const model = modelOf(dataOf([[[0, 1], [90, 91], [5000, 5001]]], [mapping(0, 100, "a"), mapping(5000, 5003, "b")]));
  const rows = rowsOf(model.segments, whole(0, 1), 57);
  let at = 0;
  for (const one of rows.visible) {
    assert.equal(one.from, at);
    for (let row = one.from; row < one.to; row++) {
      const [low, high] = pagesOfRow(one, row);
      assert.ok(low < high, `row ${row}`);
      assert.equal(rows.pages[row], high - low);
    }
    at = one.to;
  }
  assert.equal(at, 57);
});

test("the words for a cell are the numbers of the look", () => {
  const model = modelOf(dataOf([[[3, 5]], [[0, 1], [7, 8]]], [mapping(0, 8, "[heap]")]));
  const picture = raster(model, whole(0, 2), 2, 1);
  const words = describe(model, picture, 0, 0);
  assert.equal(words.headline, "2 of 8 pages written at 00:00:01, [heap]");
  assert.deepEqual(words.lines, ["0x0 – 0x8000", "mapping 0x0 – 0x8000, 32.0 KiB", "look 1"]);
  const both = describe(model, raster(model, whole(0, 2), 1, 1), 0, 0);
  assert.equal(both.headline, "2 of 8 pages written per look 00:00:00–00:00:02, [heap]");
});

test("memory that was not mapped then is not called unwritten", () => {
  const model = modelOf(dataOf([[[0, 1]], [[40, 41]]], [mapping(0, 10, "[heap]", 0, 0), mapping(0, 64, "[heap]", 1, 1)]));
  const picture = raster(model, whole(0, 2), 2, 64);
  assert.equal(describe(model, picture, 0, 50).headline, "not mapped at 00:00:01, [heap]");
  assert.equal(describe(model, picture, 1, 50).headline, "0 of 1 page written at 00:00:02, [heap]");
});

test("several looks and pages as one are said to be so", () => {
  const change = { level: { looks: 2, unit: 4 }, frames: { process: [0], first: [0], last: [1], regions: [1] } };
  const model = modelOf(dataOf([[[0, 4]], []], [mapping(0, 8)], change));
  const words = describe(model, raster(model, whole(0, 2), 1, 1), 0, 0);
  assert.equal(words.headline, "about 4 of 8 pages written 00:00:00–00:00:02, [heap]");
});

test("a view stays inside, and zooming keeps the place under the pointer", () => {
  const all = whole(0, 600);
  const near = zoomTime(all, 0.5, 150);
  assert.deepEqual([near.from, near.to], [75, 375]);
  assert.deepEqual(clamp(pan(near, -5, 0), all, 1), { from: 0, to: 300, top: 0, bottom: 1 });
  assert.deepEqual(clamp(zoomTime(all, 3, 10), all, 1), all);
  const least = clamp(zoomTime(all, 1e-9, 100), all, 4);
  assert.ok(Math.abs(least.to - least.from - 4) < 1e-9);
  const memory = zoomMemory(all, 0.1, 0.8);
  assert.ok(memory.top <= 0.8 && memory.bottom >= 0.8 && memory.bottom - memory.top < 0.11);
});

test("every step of the scale changes lightness in one direction", () => {
  const light = ([r, g, b]) => 0.2126 * (r / 255) ** 2.2 + 0.7152 * (g / 255) ** 2.2 + 0.0722 * (b / 255) ** 2.2;
  for (const [theme, direction] of [["dark", 1], ["light", -1]]) {
    const values = table(theme).map(light);
    for (let at = 1; at < values.length; at++)
      assert.ok((values[at] - values[at - 1]) * direction > -1e-4, `${theme} at ${at}`);
  }
  assert.equal(placeOf(1), 1);
  assert.equal(placeOf(LOWEST), 0);
  assert.equal(placeOf(LOWEST / 50), 0);
  assert.ok(placeOf(0.01) > 0.3 && placeOf(0.01) < 0.35);
  assert.equal(placeOf(0.25, false), 0.25);
});

test("cells without a written page leave the pixel as it is", () => {
  const pixels = new Uint8ClampedArray(4 * 4);
  paint(pixels, Float32Array.from([0, -1, NaN, 1e-9]), 4, 1, table("dark"), true);
  assert.deepEqual([...pixels].map((value) => value > 0), [...Array(12).fill(false), true, true, true, true]);
});

test("mappings of one name are one row, and rates are per second", () => {
  const bytes = dataOf([[[0, 4]], [[0, 2]]], [mapping(0, 8, "[heap]", 0, 0), mapping(0, 16, "[heap]", 1, 1), mapping(50, 60, "idle")]);
  const model = modelOf(bytes);
  const [heap, idle] = groupsOf(model);
  assert.deepEqual([heap.name, heap.size, heap.written, heap.last], ["[heap]", 16 * PAGE, 6 * PAGE, 2]);
  assert.equal(idle.written, 0);
  assert.deepEqual(rateOf(model, heap), [4 * PAGE, 2 * PAGE]);
});

test("the cost of all looks is weighted by the time that the target used", () => {
  const model = modelOf(dataOf([[[0, 4]], [[0, 2]], [[0, 1]]], [mapping(0, 8)]));
  const cost = () => figuresOf(model).find(([word]) => word === "Cost to the target")?.[1];
  assert.equal(cost(), undefined);
  Object.assign(model.looks, { share: [0.5, 0.1, null], used: [1e6, 9e6, null] });
  assert.equal(cost(), "14 %");
  Object.assign(model.looks, { used: [null, 9e6, null] });
  assert.equal(cost(), undefined);
});

test("a moment belongs to the look that ends after it", () => {
  const looks = { to: [1, 2, 3] };
  assert.equal(lookAt(looks, [5, 6, 7], 1.2), 1);
  assert.equal(lookAt(looks, [5, null, 7], 1.2), 2);
  assert.equal(lookAt(looks, [5, 6, 7], 3.5), null);
});

test("processes have bands of their own, though their addresses are the same", () => {
  const change = { processes: [{ pid: 1, name: "one" }, { pid: 2, name: "two" }] };
  change.frames = { process: [0, 1], first: [0, 1], last: [0, 1], regions: [1, 1] };
  const model = modelOf(dataOf([[[0, 4]], [[2, 3]]], [mapping(0, 8), mapping(0, 8, "[heap]", 0, 9, 1)], change));
  assert.deepEqual(model.bands.map((band) => band.process), [0, 1]);
  const picture = raster(model, whole(0, 2), 2, 2);
  assert.equal(describe(model, picture, 0, 0).headline, "4 of 8 pages written at 00:00:01, [heap]");
  assert.equal(describe(model, picture, 1, 1).headline, "1 of 8 pages written at 00:00:02, [heap]");
  assert.ok(describe(model, picture, 1, 1).lines.includes("two (2)"));
  assert.equal(describe(model, picture, 1, 0).headline, "no look here, [heap]");
});

test("an empty recording has a model", () => {
  const model = modelOf(dataOf([], []));
  assert.equal(model.pages, 0);
  assert.equal(raster(model, whole(0, 1), 4, 4).cells.length, 16);
});

test("a function says how many threads wrote besides the one that is named", () => {
  const writer = {
    function: "store", module: "libc.so.6", thread: "main", threads: 3, mapping: "[heap]", pages: 512,
  };
  assert.deepEqual(writerTexts(writer, PAGE), {
    before: ["store", "libc.so.6", "2.0 MiB"],
    behind: ["main +2", "[heap]"],
  });
  assert.equal(writerTexts({ ...writer, threads: 1 }, PAGE).behind[0], "main");
});

test("a function of a group says which process ran it, and how many others did", () => {
  const writer = {
    function: "store", module: "libc.so.6", thread: "main", threads: 3, mapping: "[heap]", pages: 512,
    process: "postgres", processes: 4,
  };
  assert.equal(writerTexts(writer, PAGE).behind[2], "postgres +3");
  const one = { ...writer, process: "postgres (42)", processes: 1 };
  assert.equal(writerTexts(one, PAGE).behind[2], "postgres (42)");
});

test("a region of a made recording may be larger than any memory", () => {
  const model = modelOf(dataOf([[[10, 2 ** 44]], [[12, 13]]], [mapping(0, 2 ** 44)]));
  assert.equal(model.bands.length, 1);
  assert.equal(written(model.regions, 1, 0, model.pages), 1);
});

test("a cell names its mapping at that time, and says how many others it has", () => {
  const mappings = [mapping(0, 4, "a", 0, 0), mapping(0, 6, "b", 1, 1), mapping(6, 8, "b", 1, 1)];
  const model = modelOf(dataOf([[[0, 1]], [[0, 1], [7, 8]]], mappings));
  const picture = raster(model, whole(0, 2), 2, 1);
  const line = (column) => describe(model, picture, column, 0).lines[1];
  assert.match(line(0), /^(a|mapping) 0x0 – 0x4000, 16.0 KiB$/);
  assert.match(line(1), /0x0 – 0x6000, 24.0 KiB(, and 1 other mapping)?$/);
  const all = mappings.map((one) => ({ ...one, name: "c" }));
  const one = modelOf(dataOf([[[0, 1]], [[0, 1], [7, 8]]], all));
  const both = describe(one, raster(one, whole(0, 2), 2, 1), 1, 0);
  assert.equal(both.lines[1], "mapping 0x0 – 0x6000, 24.0 KiB, and 1 other mapping");
});

test("a mapping has places: of several sizes at one address it is one", () => {
  const mappings = [
    mapping(0, 4, "a", 0, 0), mapping(0, 6, "a", 1, 1), mapping(6, 8, "a"), mapping(5000, 5008, "a"),
  ];
  const model = modelOf(dataOf([[[0, 2], [5000, 5005]], [[1, 2]]], mappings));
  const [{ places }] = groupsOf(model);
  assert.deepEqual(places, [
    { start: 5000, end: 5008, written: 5 * PAGE, last: 1 },
    { start: 0, end: 6, written: 3 * PAGE, last: 2 },
    { start: 6, end: 8, written: 0, last: null },
  ]);
  const drawn = drawnAt(model, 0, 5000, 5008);
  assert.equal(drawn.bottom, 1);
  assert.ok(drawn.top > 0.4);
  assert.equal(drawnAt(model, 0, 9000, 9001), null);
});

test("a stepped line begins with the first look, and any other with its end", () => {
  const model = modelOf(dataOf([[[0, 4]], [[0, 1]]], [mapping(0, 8)]));
  const lines = [{ values: [7, 8] }, { values: [null, 9] }];
  assert.deepEqual(columnsOfChart(model, { lines, stepped: true }), [[0, 1, 2], [7, 7, 8], [null, null, 9]]);
  assert.deepEqual(columnsOfChart(model, { lines })[1], [null, 7, 8]);
});

test("labels of a group keep the pid where the name of the process has no room", () => {
  const model = { processes: 2, facts: { processes: [{ name: "postgres: writer", pid: 7 }] } };
  const band = { process: 0, name: "/usr/lib/libc.so.6" };
  assert.deepEqual(titlesOf(model, band), ["postgres: writer/7 libc.so.6", "7 libc.so.6"]);
  assert.equal(middle("abcdefghij", 7), "abc…hij");
  assert.equal(middle("abcdefg", 7), "abcdefg");
});

test("a look that lasted far longer than the others is pointed out", () => {
  const looks = [[[0, 1]], [[0, 2]], [[0, 3]], [[0, 8]], [[0, 1]]];
  const even = modelOf(dataOf(looks, [mapping(0, 8)]));
  assert.deepEqual(notesOf(even), []);
  const written = (pages) => {
    const model = modelOf(dataOf(looks, [mapping(0, 8)]));
    model.looks.to[3] = model.frames.to[3] = 24;
    model.looks.to[4] = model.frames.to[4] = 25;
    model.looks.from[4] = model.frames.from[4] = 24;
    model.to = 25;
    model.looks.pages[3] = pages;
    return model;
  };
  const model = written(8);
  const [note] = notesOf(model);
  assert.match(note, /^A look lasted 21 s \(00:00:03 – 00:00:24\), far longer than the others\./);
  const words = describe(model, raster(model, whole(0, 25), 25, 1), 12, 0);
  assert.equal(words.lines.at(-1), "look 4, of 21 s");
  assert.deepEqual(notesOf(written(0)), [], "a look without a page shows nothing");
});
