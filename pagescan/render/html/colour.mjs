// The colours: a scale whose lightness only rises or falls, so that every eye can order it.

const SCALES = {
  dark: ["#2c2a5e", "#5b2f86", "#9a3a8c", "#d64f6f", "#f58a4b", "#fdc75a", "#fff6b8"],
  light: ["#fbe3a0", "#f9b968", "#f08358", "#d14f6d", "#973a86", "#5a2c7e", "#25174f"],
};

export const THEMES = {
  dark: {
    page: "#12141c", text: "#e8eaf2", soft: "#a3a9bd", line: "#3a4054", none: "#1f2330",
    missing: "#12141c", cursor: "#ffffff", label: "rgba(18, 20, 28, 0.82)",
    series: ["#7cc7ff", "#ffb454", "#8fe388", "#ff8fa3", "#c7a6ff", "#e0e0e0"],
  },
  light: {
    page: "#ffffff", text: "#1b1e28", soft: "#555c70", line: "#d3d7e2", none: "#eceff5",
    missing: "#ffffff", cursor: "#000000", label: "rgba(255, 255, 255, 0.86)",
    series: ["#0b62a8", "#b05a00", "#2b7a2b", "#b3224a", "#6a3fb0", "#444444"],
  },
};

/** The smallest share with a colour of its own; smaller ones have the same. */
export const LOWEST = 0.001;

function channels(colour) {
  return [1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16));
}

/** Returns the place of a share on the scale, 0 to 1. */
export function placeOf(share, log = true) {
  if (!log) return Math.min(Math.max(share, 0), 1);
  const place = 1 - Math.log(Math.max(share, LOWEST)) / Math.log(LOWEST);
  return Math.min(Math.max(place, 0), 1);
}

/** Returns 256 colours as [red, green, blue], for the places 0 to 1. */
export function table(theme) {
  const stops = SCALES[theme].map(channels);
  return Array.from({ length: 256 }, (_, index) => {
    const place = (index / 255) * (stops.length - 1);
    const low = Math.min(Math.floor(place), stops.length - 2);
    return stops[low].map((value, at) =>
      Math.round(value + (stops[low + 1][at] - value) * (place - low)),
    );
  });
}

/** Fills the pixels of a picture, row by row, with the shares of cells, column by column. */
export function paint(pixels, cells, width, height, colours, log) {
  for (let column = 0; column < width; column++) {
    for (let row = 0; row < height; row++) {
      const share = cells[column * height + row];
      if (!(share > 0)) continue;
      const colour = colours[Math.round(placeOf(share, log) * 255)];
      const at = 4 * (row * width + column);
      pixels[at] = colour[0];
      pixels[at + 1] = colour[1];
      pixels[at + 2] = colour[2];
      pixels[at + 3] = 255;
    }
  }
}
