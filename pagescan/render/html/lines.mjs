// The lines below the map, drawn by uPlot: rates, resident memory, cost.

import { THEMES } from "./colour.mjs";
import { clock, middle, nameOf, percent, roundStep, size, ticks } from "./format.mjs";
import { gutterOf, rightOf, shortName } from "./map.mjs";
import { groupsOf, lookAt, rateOf, totalRate } from "./model.mjs";

const MOST = 4; // mappings, or processes, with a line of their own
const AVERAGE = "all, on average";
const LONGEST = 44; // characters of a label
const LEAST = 0.01; // of all writes: a mapping with less would be a line at 0

/**
 * Returns the charts that there is data for: title, what it is, format and lines, and what
 * the legend says while the pointer is nowhere: of which time, and the value of a line.
 */
export function chartsOf(model) {
  const { looks, facts } = model;
  const seconds = looks.to.map((to, look) => to - looks.from[look]);
  const name = (process) => middle(nameOf(facts.processes[process]), LONGEST);
  const own = (process, values) =>
    values.map((value, look) => (looks.process[look] === process ? value : null));
  const busiest = totals(model); // one order, and so one colour for a process everywhere
  const perProcess = (values, label) =>
    busiest.map(({ process }) => ({
      label: model.processes > 1 ? name(process) : label,
      values: own(process, values),
    }));
  const charts = [
    {
      title: "Written per second",
      words: "Each page counts once per look, however often it was written between two looks.",
      format: (value) => `${size(value)}/s`,
      base: 1024,
      lines: model.processes > 1
        ? busiest.map(({ process, values }) => ({ label: name(process), values }))
        : byMapping(model),
      stepped: true,
      rest: { time: AVERAGE, of: (values) => mean(values, seconds) },
    },
  ];
  if (looks.resident.some((value) => value !== null))
    charts.push({
      title: "Resident memory",
      words: "What the process had in memory at each look.",
      format: size,
      base: 1024,
      lines: perProcess(looks.resident, "resident"),
      rest: { time: "last look", of: (values) => values.findLast((value) => value !== null) },
    });
  if (looks.share.some((value) => value !== null))
    charts.push({
      title: "What tracking cost the target",
      words: "The estimated part of the target's processor time.",
      format: percent,
      base: 1000,
      lines: perProcess(looks.share, "cost"),
      stepped: true,
      rest: { time: AVERAGE, of: (values) => mean(values, looks.used) },
    });
  return charts;
}

/** Returns the mean of values by their weights; null if it is not known. */
function mean(values, weights) {
  let sum = 0;
  let weight = 0;
  for (let at = 0; at < values.length; at++) {
    if (values[at] === null) continue;
    if (weights[at] === null) return null; // an earlier version did not record it
    sum += values[at] * weights[at];
    weight += weights[at];
  }
  return weight ? sum / weight : null;
}

function byMapping(model) {
  const named = groupsOf(model);
  const least = LEAST * named.reduce((sum, group) => sum + group.written, 0);
  const groups = named.filter((group) => group.written && group.written >= least).slice(0, MOST);
  const lines = groups.map((group) => ({
    label: middle(shortName(group.name), LONGEST),
    values: rateOf(model, group),
  }));
  const all = { label: "all memory", values: totalRate(model, 0), filled: true };
  return lines.length === 1 ? [all] : [all, ...lines];
}

/** Returns the processes that wrote most, with their rates. */
function totals(model) {
  const sums = Array.from({ length: model.processes }, (_, process) => {
    const values = totalRate(model, process);
    return { process, values, sum: values.reduce((sum, one) => sum + one, 0) };
  });
  return sums.sort((a, b) => b.sum - a.sum).slice(0, MOST + 1);
}

/**
 * Returns the columns of a chart: times, then the values of each line. A look lasts until
 * its own time, so a stepped line begins where the first look of all does.
 */
export function dataOf(model, { lines, stepped }) {
  const { from, to } = model.looks;
  const begins = ({ values }) => {
    const first = values.findIndex((value) => value !== null);
    return stepped && from[first] <= model.from ? values[first] : null;
  };
  return [[model.from, ...to], ...lines.map((line) => [begins(line), ...line.values])];
}

/** Draws the charts into a place; `Plot` is uPlot. They share time and view with the map. */
export function drawLines(model, state, place, Plot) {
  const charts = chartsOf(model);
  let plots = [];
  let quiet = false; // while the store moves the charts, they do not move the store

  const make = (chart, { theme, view }, width) => {
    const colours = THEMES[theme];
    const axis = { stroke: colours.soft, grid: { stroke: colours.line, width: 1 }, font: "12px system-ui" };
    const gutter = gutterOf(width);
    const atRest = chart.lines.map((line) => chart.rest.of(line.values));
    const words = (value) => (Number.isFinite(value) ? chart.format(value) : "–");
    const options = {
      width,
      height: 170,
      padding: [8, rightOf(width), 0, 0],
      scales: {
        x: { time: false, range: (_, from, to) => [from, to], min: view.from, max: view.to },
        y: { range: (_, low, high) => [0, high > 0 ? high * 1.05 : 1] },
      },
      axes: [
        {
          ...axis,
          size: 30,
          splits: (plot, _, from, to) => ticks(from, to, width - gutter - rightOf(width)).times,
          values: (plot, times) =>
            times.map((time) => clock(time, times.length > 1 && times[1] - times[0] < 1)),
        },
        {
          ...axis,
          size: gutter,
          splits: (plot, _, low, high) => steps(high, chart.base),
          values: (_, values) => values.map(short(chart.format)),
        },
      ],
      series: [
        {
          label: "time",
          value: (_, time) => (time === null ? chart.rest.time : `${clock(time, model.fine)} UTC`),
        },
        ...chart.lines.map((line, at) => ({
          label: line.label,
          stroke: at ? colours.series[at] : colours.series[0],
          width: 1.25,
          fill: line.filled ? `${colours.series[0]}26` : undefined,
          spanGaps: true,
          points: { show: false },
          paths: chart.stepped ? Plot.paths.stepped({ align: -1 }) : undefined,
          value: (_, value, series, look) =>
            words(look === null || look === undefined ? atRest[at] : value),
        })),
      ],
      cursor: {
        y: false,
        drag: { x: true, y: false, setScale: true },
        points: { size: 7 },
        dataIdx: (plot, at, nearest, time) =>
          lookAt({ to: plot.data[0] }, plot.data[at], time) ?? nearest,
      },
      hooks: {
        setCursor: [
          (plot) => {
            if (quiet) return;
            const { left } = plot.cursor;
            state.set({ time: left >= 0 ? plot.posToVal(left, "x") : null });
          },
        ],
        setScale: [
          (plot, scale) => {
            if (quiet || scale !== "x" || !plot.status) return;
            const { min, max } = plot.scales.x;
            state.set({ view: { ...state.get().view, from: min, to: max } });
          },
        ],
      },
    };
    const section = document.createElement("section");
    section.className = "chart";
    section.append(element("h2", chart.title), element("p", chart.words));
    place.append(section);
    return new Plot(options, dataOf(model, chart), section);
  };

  const silently = (action) => {
    quiet = true;
    for (const plot of plots) action(plot);
    queueMicrotask(() => queueMicrotask(() => (quiet = false)));
  };

  return {
    draw(now, width) {
      for (const plot of plots) plot.destroy();
      place.replaceChildren();
      quiet = true;
      plots = charts.map((chart) => make(chart, now, width));
      silently((plot) => plot.setScale("x", { min: now.view.from, max: now.view.to }));
    },
    view: ({ view }) =>
      silently((plot) => plot.setScale("x", { min: view.from, max: view.to })),
    time({ time }) {
      silently((plot) => {
        const left = time === null ? -10 : plot.valToPos(time, "x");
        if (Math.abs((plot.cursor.left ?? -10) - left) > 0.5) plot.setCursor({ left, top: time === null ? -10 : 5 });
      });
    },
  };
}

/** Returns the labelled values of an axis that begins at 0. */
function steps(high, base) {
  const step = roundStep(high, 5, base);
  return Array.from({ length: Math.floor(high / step) + 1 }, (_, at) => at * step);
}

/** Returns a format as an axis needs it: without the last ".0", and a plain 0. */
function short(format) {
  return (value) => (value === 0 ? "0" : format(value).replace(/\.0(?= )/, "").replace("/s", ""));
}

/** Returns an element with text. */
export function element(name, text, classes = "") {
  const made = document.createElement(name);
  made.textContent = text;
  if (classes) made.className = classes;
  return made;
}
