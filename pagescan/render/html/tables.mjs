// The figures above the map, and the tables of mappings and functions below it.

import { address, clock, count, date, duration, nameOf, percent, plural, size } from "./format.mjs";
import { element } from "./lines.mjs";
import { drawnAt, groupsOf, longLooks } from "./model.mjs";

const ROWS = 15;
const PLACES = 50; // of a mapping: more would be no list to read

/** Writes title, facts, notes and figures. */
export function writeHead(model, place) {
  const { facts, looks } = model;
  const [first] = facts.processes;
  const more = facts.processes.length - 1;
  const title = first ? nameOf(first) : "an empty recording";
  const day = date(model.from) === date(model.to) ? "" : `${date(model.to)} `;
  const facts_ = [
    `${date(model.from)} ${clock(model.from)} – ${day}${clock(model.to)} UTC`,
    plural(looks.to.length, "look"),
    facts.host,
    `Linux ${facts.kernel}`,
  ];
  place.title.textContent = more > 0 ? `${title} and ${count(more)} more` : title;
  place.facts.textContent = facts_.filter(Boolean).join(" · ");
  place.notes.replaceChildren(...notesOf(model).map((note) => element("p", note)));
  place.figures.replaceChildren(...figuresOf(model).map(figure));
}

/** Returns the lines that warn: a coarser map, an estimate, a damaged file. */
export function notesOf(model) {
  const { facts } = model;
  const notes = [...facts.notes];
  const { looks, unit } = facts.level;
  if (looks > 1 || unit > 1) {
    const parts = [];
    if (looks > 1) parts.push(`${looks} looks as one`);
    if (unit > 1) parts.push(`${size(unit * facts.pageSize)} of memory as one`);
    notes.push(
      `The map is coarser than the recording, so that the page stays below 20 MB and opens quickly: it shows ${parts.join(" and ")}. ` +
        "Lines and figures are exact. For the detail of a part: pagescan report --html with --time or --range.",
    );
  }
  if (facts.budget !== null)
    notes.push(
      `Recorded with --budget ${facts.budget} %: the map shows the tracked part of the memory, and figures of all memory are estimates.`,
    );
  const { number, longest } = longLooks(model);
  if (longest) {
    const { from, to } = model.looks;
    const time = `${clock(from[longest.look], model.fine)} – ${clock(to[longest.look], model.fine)}`;
    const which = number > 1
      ? `${plural(number, "look")} lasted far longer than the others, the longest ${duration(longest.seconds)} (${time})`
      : `A look lasted ${duration(longest.seconds)} (${time}), far longer than the others`;
    notes.push(`${which}. The map shows all pages of that time as one look, so they are more; rates are right.`);
  }
  return notes;
}

/** Returns the figures: a word and a value for each. */
export function figuresOf(model) {
  const { looks, facts } = model;
  let pages = 0;
  let peak = 0;
  let peakTime = null;
  let cost = null;
  let known = 0;
  for (let look = 0; look < looks.to.length; look++) {
    const seconds = looks.to[look] - looks.from[look];
    const rate = (looks.pages[look] * facts.pageSize) / seconds;
    pages += looks.pages[look];
    if (rate > peak) [peak, peakTime] = [rate, looks.to[look]];
    if (looks.share[look] === null) continue;
    // An earlier version did not record the time: then the share of all is not known.
    cost = looks.used[look] === null ? NaN : (cost ?? 0) + looks.share[look] * looks.used[look];
    known += looks.used[look] ?? 0;
  }
  const about = facts.budget === null ? "" : "about ";
  const figures = [
    ["Written, all looks", `${about}${size(pages * facts.pageSize)}`, plural(pages, "page")],
    ["On average", looks.to.length ? `${size((pages * facts.pageSize) / (model.to - model.from))}/s` : "–", `over ${duration(model.to - model.from)}`],
    ["Highest rate", `${size(peak)}/s`, peakTime === null ? "" : `at ${clock(peakTime, model.fine)} UTC`],
    ["Memory in the map", size(model.pages * facts.pageSize), "what was never written is left out"],
  ];
  if (known > 0 && !Number.isNaN(cost))
    figures.push(["Cost to the target", percent(cost / known), "of its processor time, estimated"]);
  return figures;
}

function figure([word, value, more]) {
  const made = element("div", "");
  made.append(element("dt", word), element("dd", value), element("small", more));
  return made;
}

/** Writes the table of mappings; `show({ top, bottom })` is called to see one in the map. */
export function writeMappings(model, body, foot, button, show) {
  const groups = groupsOf(model);
  const rows = groups.filter((group) => group.written);
  const total = rows.reduce((sum, group) => sum + group.written, 0);
  writeRows(rows, body, button, (group) => rowOf(model, group, total, show));
  const never = groups.filter((group) => !group.written);
  const bytes = never.reduce((sum, group) => sum + group.size, 0);
  foot.textContent = never.length
    ? `${plural(never.length, "mapping")} of other names (${size(bytes)}) had no written page.`
    : "";
}

/** Writes the first rows of a table; a button writes the others. */
function writeRows(rows, body, button, make) {
  const write = (most) => body.replaceChildren(...rows.slice(0, most).map(make));
  write(ROWS);
  button.hidden = rows.length <= ROWS;
  button.textContent = `Show all ${count(rows.length)}`;
  button.addEventListener("click", () => {
    write(rows.length);
    button.hidden = true;
  });
}

/** Writes the table of functions; without any the section stays hidden, and so does the
 * head of the processes unless it is a group. */
export function writeWriters({ facts }, section, body, button, head) {
  section.hidden = !facts.writers.length;
  head.hidden = !facts.writers.some((writer) => writer.process);
  writeRows(facts.writers, body, button, (writer) => writerRow(writer, facts.pageSize));
}

/** Returns the texts of a row of the table of functions, but that of the share. */
export function writerTexts(writer, pageSize) {
  const more = writer.threads > 1 ? ` +${count(writer.threads - 1)}` : "";
  const others = writer.processes > 1 ? ` +${count(writer.processes - 1)}` : "";
  return {
    before: [writer.function, writer.module, size(writer.pages * pageSize)],
    behind: [
      `${writer.thread}${more}`,
      writer.mapping,
      ...(writer.process ? [`${writer.process}${others}`] : []),
    ],
  };
}

function writerRow(writer, pageSize) {
  const row = element("tr", "");
  const { before, behind } = writerTexts(writer, pageSize);
  row.append(
    ...before.map((text) => element("td", text)),
    barOf(writer.share),
    ...behind.map((text) => element("td", text, "words")),
  );
  return row;
}

/** Returns a cell with a share as text and as a bar. */
function barOf(share) {
  const bar = element("td", percent(share), "bar");
  bar.style.setProperty("--share", `${Math.max(share * 100, 0.5)}%`);
  return bar;
}

/** Returns the row of a mapping; a button below its name opens the list of its places. */
function rowOf(model, group, total, show) {
  const { places } = group;
  const more = model.processes > 1 ? ` · ${nameOf(model.facts.processes[group.process])}` : "";
  const tops = group.bands.map((band) => band.top);
  const bottoms = group.bands.map((band) => band.bottom);
  const drawn = tops.length
    ? { top: Math.min(...tops), bottom: Math.max(...bottoms) }
    : null;
  const row = cells(model, `${group.name}${more}`, group.size, group, total, drawn, show);
  if (places.length === 1) {
    row.firstChild.append(element("small", rangeOf(places[0], model.facts.pageSize)));
    return row;
  }
  const button = element("button", `${plural(places.length, "place")} ▸`, "link places");
  button.setAttribute("aria-expanded", "false");
  let open = [];
  button.addEventListener("click", () => {
    if (open.length) {
      for (const each of open) each.remove();
      open = [];
    } else {
      open = placeRows(model, group, total, show);
      row.after(...open);
    }
    button.textContent = `${plural(places.length, "place")} ${open.length ? "▾" : "▸"}`;
    button.setAttribute("aria-expanded", String(open.length > 0));
  });
  row.firstChild.append(button);
  return row;
}

/** Returns a row for each of the places that were written, and one about the others. */
function placeRows(model, group, total, show) {
  const { pageSize } = model.facts;
  const written = group.places.filter((place) => place.written);
  const rows = written.slice(0, PLACES).map((place) => {
    const drawn = drawnAt(model, group.process, place.start, place.end);
    const bytes = (place.end - place.start) * pageSize;
    return cells(model, rangeOf(place, pageSize), bytes, place, total, drawn, show);
  });
  const less = written.length - rows.length;
  const never = group.places.length - written.length;
  const others = [
    ...(less ? [`${plural(less, "place")} that had less written`] : []),
    ...(never ? [`${plural(never, "place")} without a written page`] : []),
  ];
  if (others.length) {
    const row = element("tr", "");
    row.append(element("td", `and ${others.join(", ")}`));
    rows.push(row);
  }
  for (const row of rows) row.className = "place";
  return rows;
}

/** Returns a row of the table of mappings; its name shows in the map what it is about. */
function cells(model, label, bytes, { written, last }, total, drawn, show) {
  const row = element("tr", "");
  const name = element("td", "");
  if (drawn) {
    const button = element("button", label, "link");
    button.title = "Show it in the map";
    button.addEventListener("click", () => show(drawn));
    name.append(button);
  } else name.append(label);
  row.append(
    name,
    element("td", size(bytes)),
    element("td", size(written)),
    barOf(written / total),
    element("td", last === null ? "–" : clock(last, model.fine)),
  );
  return row;
}

/** Returns the addresses of a place. */
export function rangeOf({ start, end }, pageSize) {
  return `${address(start, pageSize)} – ${address(end, pageSize)}`;
}
