/** Colours and the chart of surprise. */

const SVG = "http://www.w3.org/2000/svg";
const MOST = 8; // bits; more look the same

/** From expected to surprising. */
export const SCALE = [[255, 253, 248], [253, 232, 200], [250, 190, 130], [242, 134, 94], [224, 78, 72]];

export const bitsOf = (logProb) => -logProb / Math.LN2;
export const visible = (letter) => ({ " ": "␣", "\n": "↵", "\t": "⇥" })[letter] ?? letter;

export function colourOf(bits) {
  const place = (Math.min(bits, MOST) / MOST) * (SCALE.length - 1);
  const [low, high] = [Math.floor(place), Math.ceil(place)];
  const mixed = SCALE[low].map((value, i) => Math.round(value + (SCALE[high][i] - value) * (place - low)));
  return `rgb(${mixed.join(" ")})`;
}

/** A bar for each of the last letters. */
export function drawChart(svg, read) {
  const [width, height] = [svg.clientWidth || 900, svg.clientHeight || 74];
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  const [left, bottom] = [26, height - 14];
  const step = Math.max(5, Math.min(14, (width - left) / Math.max(read.length, 1)));
  const shown = read.slice(-Math.floor((width - left) / step));
  const parts = [];
  for (const bits of [0, 4, 8]) {
    const y = bottom - (bits / MOST) * (bottom - 6);
    parts.push(made("line", { x1: left, x2: width, y1: y, y2: y, class: "axis" }), made("text", { x: 0, y: y + 4 }, bits ? `${bits}` : "0 b"));
  }
  shown.forEach(({ letter, bits }, i) => {
    const x = left + i * step;
    if (bits !== null) {
      const tall = Math.max(1, (Math.min(bits, MOST) / MOST) * (bottom - 6));
      const fill = colourOf(Math.max(bits, 1.6));
      parts.push(made("rect", { x: x + 1, y: bottom - tall, width: Math.max(1, step - 2), height: tall, rx: 1.5, fill }));
    }
    if (step >= 9) parts.push(made("text", { x: x + step / 2, y: height - 2, "text-anchor": "middle" }, visible(letter)));
  });
  svg.replaceChildren(...parts);
}

function made(tag, attributes, text) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  if (text !== undefined) element.textContent = text;
  return element;
}
