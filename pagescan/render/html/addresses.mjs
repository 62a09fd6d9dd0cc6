// Chooses the addresses beside the map: where memory begins, and round ones between.

const FAR = 3; // times as far apart as they must be: round addresses of one segment

/**
 * Returns the pages whose addresses stand beside the map, each with its row, ascending.
 * `visible` has the segments as `rowsOf` returns them, `rows` is the height of the map, and
 * `least` is how many rows two addresses are apart at least. The largest segments come first.
 */
export function addressTicks(visible, rows, least) {
  const found = [];
  const add = (page, row) => {
    if (row >= 0 && row < rows && found.every((one) => Math.abs(one.row - row) >= least))
      found.push({ page, row });
  };
  const shown = ({ from, to }) => Math.min(to, rows) - Math.max(from, 0);
  const largest = [...visible].sort((one, other) => shown(other) - shown(one));
  for (const { segment, from } of largest) add(segment.start, from);
  for (const { segment, from, perPage } of largest) {
    const step = 2 ** Math.ceil(Math.log2(Math.max((FAR * least) / perPage, 1)));
    const first = segment.start + Math.max(-from / perPage, 0);
    const end = Math.min(segment.end, segment.start + (rows - from) / perPage);
    for (let page = Math.ceil(first / step) * step; page < end; page += step) {
      const row = from + (page - segment.start) * perPage;
      add(page, perPage < 1 ? Math.floor(row + 1e-9) : Math.ceil(row - 1e-9));
    }
  }
  return found.sort((one, other) => one.row - other.row);
}

/** Returns the lines of an address where there is little room: eight digits in the last one. */
export function linesOf(address) {
  return address.length > 10 ? [address.slice(0, -8), address.slice(-8)] : [address];
}
