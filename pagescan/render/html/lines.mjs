// The lines below the map, drawn by uPlot: rates, resident memory, cost.

import { THEMES } from "./colour.mjs";
import { clock, percent, roundStep, size, ticks } from "./format.mjs";
import { RIGHT, gutterOf } from "./map.mjs";
import { groupsOf, lookAt, rateOf, totalRate } from "./model.mjs";

const MOST = 4; // mappings, or processes, with a line of their own

/** Returns the charts that there is data for: title, what it is, format and lines. */
export function chartsOf(model) {
  const { looks, facts } = model;
  const name = (process) => `${facts.processes[process].name} (${facts.processes[process].pid})`;
  const own = (process, values) =>
    values.map((value, look) => (looks.process[look] === process ? value : null));
  const perProcess = (values, label) =>
    Array.from({ length: Math.min(model.processes, MOST + 1) }, (_, process) => ({
      label: model.processes > 1 ? name(process) : label,
      values: own(process, values),
    }));
  const charts = [
    {
      title: "Written per second",
      words: "Each page counts once per look, however often it was written between two looks.",
      format: (value) => `${size(value)}/s`,
      base: 1024,
      lines: model.processes > 1 ? totals(model, name) : byMapping(model),
      stepped: true,
    },
  ];
  if (looks.resident.some((value) => value !== null))
    charts.push({
      title: "Resident memory",
      words: "What the process had in memory at each look.",
      format: size,
      base: 1024,
      lines: perProcess(looks.resident, "resident"),
    });
  if (looks.share.some((value) => value !== null))
    charts.push({
      title: "What tracking cost the target",
      words: "The estimated part of the target's processor time.",
      format: percent,
      base: 1000,
      lines: perProcess(looks.share, "cost"),
      stepped: true,
    });
  return charts;
}

function byMapping(model) {
  const groups = groupsOf(model).filter((group) => group.written).slice(0, MOST);
  const lines = groups.map((group) => ({ label: group.name, values: rateOf(model, group) }));
  const all = { label: "all memory", values: totalRate(model, 0), filled: true };
  return lines.length === 1 ? [all] : [all, ...lines];
}

function totals(model, name) {
  const sums = Array.from({ length: model.processes }, (_, process) => {
    const values = totalRate(model, process);
    return { label: name(process), values, sum: values.reduce((sum, one) => sum + one, 0) };
  });
  return sums.sort((a, b) => b.sum - a.sum).slice(0, MOST + 1);
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
    const options = {
      width,
      height: 170,
      padding: [8, RIGHT, 0, 0],
      scales: {
        x: { time: false, range: (_, from, to) => [from, to], min: view.from, max: view.to },
        y: { range: (_, low, high) => [0, high > 0 ? high * 1.05 : 1] },
      },
      axes: [
        {
          ...axis,
          size: 30,
          splits: (plot, _, from, to) => ticks(from, to, width - gutter - RIGHT).times,
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
        { label: "time", value: (_, time) => (time === null ? "–" : `${clock(time, model.fine)} UTC`) },
        ...chart.lines.map((line, at) => ({
          label: line.label,
          stroke: at ? colours.series[at] : colours.series[0],
          width: 1.25,
          fill: line.filled ? `${colours.series[0]}26` : undefined,
          spanGaps: true,
          points: { show: false },
          paths: chart.stepped ? Plot.paths.stepped({ align: -1 }) : undefined,
          value: (_, value) => (value === null || value === undefined ? "–" : chart.format(value)),
        })),
      ],
      cursor: {
        y: false,
        drag: { x: true, y: false, setScale: true },
        points: { size: 7 },
        dataIdx: (plot, at, nearest, time) => lookAt(model.looks, plot.data[at], time) ?? nearest,
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
    const data = [model.looks.to, ...chart.lines.map((line) => line.values)];
    return new Plot(options, data, section);
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
  const step = roundStep(high, 4, base);
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
