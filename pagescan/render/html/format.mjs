// Writes numbers, sizes, times and addresses for people. Times are UTC.

const UNITS = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];

/** Returns a size in binary units, with about three digits. */
export function size(bytes) {
  let value = bytes;
  let unit = 0;
  while (Math.abs(value) >= 1024 && unit < UNITS.length - 1) {
    value /= 1024;
    unit++;
  }
  if (unit === 0) return `${Math.round(value)} B`;
  return `${value.toFixed(value < 100 ? 1 : 0)} ${UNITS[unit]}`;
}

/** Returns a whole number with its thousands apart. */
export function count(number) {
  return Math.round(number).toString().replace(/\B(?=(\d{3})+$)/g, ",");
}

/** Returns "1 page" or "2 pages". */
export function plural(number, noun) {
  return `${count(number)} ${noun}${Math.round(number) === 1 ? "" : "s"}`;
}

/** Returns a share of one in percent. */
export function percent(share) {
  const value = share * 100;
  if (value === 0) return "0 %";
  if (value < 0.1) return `${Number(value.toPrecision(1))} %`;
  return `${value < 10 ? Number(value.toFixed(1)) : Math.round(value)} %`;
}

/** Returns the time of day of some seconds since 1970, with milliseconds if `fine`. */
export function clock(seconds, fine = false) {
  const text = new Date(Math.round(seconds * 1000)).toISOString();
  return text.slice(11, fine ? 23 : 19);
}

/** Returns the date of some seconds since 1970. */
export function date(seconds) {
  return new Date(seconds * 1000).toISOString().slice(0, 10);
}

/** Returns a length of time in seconds for people. */
export function duration(seconds) {
  if (seconds < 1) return `${Math.round(seconds * 1000)} ms`;
  if (seconds < 120) return `${Number(seconds.toFixed(1))} s`;
  if (seconds < 7200) return `${Math.round(seconds / 60)} min`;
  return `${Number((seconds / 3600).toFixed(1))} h`;
}

/** Returns text of so many characters at most: the middle of a longer one is left out. */
export function middle(text, most) {
  if (text.length <= most) return text;
  const end = Math.floor((most - 1) / 2);
  return `${text.slice(0, most - 1 - end)}…${text.slice(text.length - end)}`;
}

/** Returns the name of a process with its pid. */
export function nameOf(process) {
  return `${process.name} (${process.pid})`;
}

/** Returns the address of a page. */
export function address(page, pageSize) {
  return `0x${(BigInt(page) * BigInt(pageSize)).toString(16)}`;
}

const STEPS = [
  0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600,
  900, 1800, 3600, 7200, 10800, 21600, 43200, 86400, 172800, 604800,
];

/**
 * Returns the round times between two moments, for labels on some pixels: none of them
 * is so near to the end that its label would be cut.
 */
export function ticks(from, to, pixels) {
  const most = Math.max(pixels / 96, 2);
  const step = STEPS.find((one) => (to - from) / one <= most) ?? (to - from) / most;
  const end = to - ((to - from) * 18) / pixels;
  const times = [];
  for (let at = Math.ceil(from / step); at * step <= end; at++) times.push(at * step);
  return { times, step };
}

/** Returns a round step for some values from 0 up, where `base` is 1000, or 1024 for sizes. */
export function roundStep(high, most, base) {
  const unit = base ** Math.floor(Math.log(Math.max(high / most, 1e-9)) / Math.log(base));
  const steps = [1, 2, 5, 10, 20, 50, 100, 200, 500, base];
  return unit * (steps.find((one) => high / (one * unit) <= most) ?? base);
}
