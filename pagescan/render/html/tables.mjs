// The figures above the map, and the table of mappings below it.

import { clock, count, date, duration, percent, plural, size } from "./format.mjs";
import { element } from "./lines.mjs";
import { groupsOf } from "./model.mjs";

const ROWS = 15;

/** Writes title, facts, notes and figures. */
export function writeHead(model, place) {
  const { facts, looks } = model;
  const [first] = facts.processes;
  const more = facts.processes.length - 1;
  const title = first ? `${first.name} (${first.pid})` : "an empty recording";
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
export function notesOf({ facts }) {
  const notes = [...facts.notes];
  const { looks, unit } = facts.level;
  if (looks > 1 || unit > 1) {
    const parts = [];
    if (looks > 1) parts.push(`${looks} looks as one`);
    if (unit > 1) parts.push(`${size(unit * facts.pageSize)} of memory as one`);
    notes.push(
      `The map is coarser than the recording, so that the page stays below 20 MB: it shows ${parts.join(" and ")}. ` +
        "Lines and figures are exact. For the detail of a part: pagescan report --html with --time or --range.",
    );
  }
  if (facts.budget !== null)
    notes.push(
      `Recorded with --budget ${facts.budget} %: the map shows the tracked part of the memory, and figures of all memory are estimates.`,
    );
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
    cost = (cost ?? 0) + looks.share[look] * seconds;
    known += seconds;
  }
  const about = facts.budget === null ? "" : "about ";
  const figures = [
    ["Written, all looks", `${about}${size(pages * facts.pageSize)}`, plural(pages, "page")],
    ["On average", looks.to.length ? `${size((pages * facts.pageSize) / (model.to - model.from))}/s` : "–", `over ${duration(model.to - model.from)}`],
    ["Highest rate", `${size(peak)}/s`, peakTime === null ? "" : `at ${clock(peakTime, model.fine)} UTC`],
    ["Memory in the map", size(model.pages * facts.pageSize), "what was never written is left out"],
  ];
  if (cost !== null)
    figures.push(["Cost to the target", percent(cost / known), "of its processor time, estimated"]);
  return figures;
}

function figure([word, value, more]) {
  const made = element("div", "");
  made.append(element("dt", word), element("dd", value), element("small", more));
  return made;
}

/** Writes the table of mappings; `show(group)` is called to see one in the map. */
export function writeMappings(model, body, foot, button, show) {
  const groups = groupsOf(model);
  const rows = groups.filter((group) => group.written);
  const total = rows.reduce((sum, group) => sum + group.written, 0);
  const write = (most) =>
    body.replaceChildren(...rows.slice(0, most).map((group) => rowOf(model, group, total, show)));
  write(ROWS);
  button.hidden = rows.length <= ROWS;
  button.textContent = `Show all ${count(rows.length)}`;
  button.addEventListener("click", () => {
    write(rows.length);
    button.hidden = true;
  });
  const never = groups.filter((group) => !group.written);
  const bytes = never.reduce((sum, group) => sum + group.size, 0);
  foot.textContent = never.length
    ? `${plural(never.length, "mapping")} of other names (${size(bytes)}) had no written page.`
    : "";
}

function rowOf(model, group, total, show) {
  const row = element("tr", "");
  const name = element("td", "");
  const more = model.processes > 1 ? ` · ${model.facts.processes[group.process].pid}` : "";
  const label = `${group.name}${more}`;
  if (group.bands.length) {
    const button = element("button", label, "link");
    button.title = "Show it in the map";
    button.addEventListener("click", () => show(group));
    name.append(button);
  } else name.append(label);
  const share = group.written / total;
  const bar = element("td", percent(share), "bar");
  bar.style.setProperty("--share", `${Math.max(share * 100, 0.5)}%`);
  row.append(
    name,
    element("td", size(group.size)),
    element("td", size(group.written)),
    bar,
    element("td", clock(group.last, model.fine)),
  );
  return row;
}
