// A frame as it lies in the laboratory, drawn pixel by pixel: no graphics card is needed, which remote desktops lack.

const MAPS = {
  fire: [[0, [6, 5, 12]], [0.25, [72, 16, 96]], [0.5, [186, 54, 85]], [0.75, [249, 142, 9]], [1, [252, 255, 200]]],
  paper: [[0, [250, 250, 250]], [0.5, [110, 116, 128]], [1, [0, 0, 0]]],
  grey: [[0, [0, 0, 0]], [1, [255, 255, 255]]],
};
export const REASON_COLOURS = [
  [213, 94, 0], [0, 114, 178], [204, 121, 167], [0, 158, 115], [230, 159, 0], [86, 180, 233], [136, 34, 85], [153, 153, 51],
];
const GAP = 0xff1c1714; // the page's ground, as the canvas has it: alpha, blue, green, red

const colour = (r, g, b) => (255 << 24 | b << 16 | g << 8 | r) >>> 0;

export function colourTable(name) {
  const stops = MAPS[name], table = new Uint32Array(256);
  for (let i = 0; i < 256; i++) {
    const t = i / 255, k = Math.max(1, stops.findIndex(([at]) => at >= t));
    const [[a, low], [b, high]] = [stops[k - 1], stops[k]];
    table[i] = colour(...low.map((v, c) => Math.round(v + (high[c] - v) * (t - a) / (b - a))));
  }
  return table;
}

// The image and halves, quarters, … of its size that keep the highest pixel, so that small peaks survive from afar.
// Reasons (0 good, 255 no panel) follow the pixel that is kept; a good pixel goes before a bad one.
export class Pyramid {
  constructor(values, reasons, width, height) {
    this.levels = [{ values, reasons, width, height }];
    while (Math.max(this.last.width, this.last.height) > 512) this.levels.push(halved(this.last));
  }
  get last() { return this.levels[this.levels.length - 1]; }
}

function halved({ values, reasons, width, height }) {
  const w = (width + 1) >> 1, h = (height + 1) >> 1;
  const small = new Float32Array(w * h), why = new Uint8Array(w * h);
  for (let y = 0; y < h; y++) {
    for (let x = 0; x < w; x++) {
      let best = 2 * y * width + 2 * x;
      for (let dy = 0; dy < 2; dy++) {
        for (let dx = 0; dx < 2; dx++) {
          if (2 * y + dy >= height || 2 * x + dx >= width) continue;
          const at = (2 * y + dy) * width + 2 * x + dx;
          const better = reasons[at] === reasons[best] ? values[at] > values[best] : reasons[at] < reasons[best];
          if (better) best = at;
        }
      }
      small[y * w + x] = values[best];
      why[y * w + x] = reasons[best];
    }
  }
  return { values: small, reasons: why, width: w, height: h };
}

const SCALES = { linear: (t) => t, sqrt: (t) => Math.sqrt(t), log: (t) => Math.log1p(999 * t) / Math.log(1000) };

// Draw what the view shows of the image: `view` has the size of an image pixel in canvas pixels and the image's corner.
export function draw(canvas, pyramid, view, { low, high, scale, table, showMask }) {
  const context = canvas.getContext("2d", { alpha: false });
  const { width, height } = canvas, picture = context.createImageData(width, height);
  const out = new Uint32Array(picture.data.buffer).fill(GAP);
  const wanted = Math.max(0, Math.floor(Math.log2(1 / view.size) + 1e-6));
  const number = Math.min(wanted, pyramid.levels.length - 1), level = pyramid.levels[number];
  const size = view.size * 2 ** number, span = Math.max(high - low, 1e-12);
  const steps = new Uint8Array(1025); // the scale is looked up: a logarithm per pixel would take half of the time
  for (let i = 0; i <= 1024; i++) steps[i] = Math.round(255 * SCALES[scale](i / 1024));
  const masks = REASON_COLOURS.map((c) => colour(...c)), hidden = colour(44, 50, 60);
  const columns = new Int32Array(width);
  for (let x = 0; x < width; x++) {
    const at = Math.floor((x + 0.5 - view.x) / size);
    columns[x] = at >= 0 && at < level.width ? at : -1;
  }
  for (let y = 0; y < height; y++) {
    const row = Math.floor((y + 0.5 - view.y) / size);
    if (row < 0 || row >= level.height) continue;
    const start = row * level.width, line = y * width;
    for (let x = 0; x < width; x++) {
      if (columns[x] < 0) continue;
      const at = start + columns[x], why = level.reasons[at];
      if (why === 255) continue;
      if (why > 0) {
        out[line + x] = showMask ? masks[(why - 1) % masks.length] : hidden;
        continue;
      }
      const t = (level.values[at] - low) / span;
      out[line + x] = table[steps[t > 0 ? (t < 1 ? (1024 * t) | 0 : 1024) : 0]];
    }
  }
  context.putImageData(picture, 0, 0);
}

// Limits of brightness that show a frame's background and its peaks: quantiles of the good pixels, of a sample.
export function autoLimits(values, reasons) {
  const sample = [], step = Math.max(1, Math.floor(values.length / 60000));
  for (let i = 0; i < values.length; i += step) if (reasons[i] === 0 && Number.isFinite(values[i])) sample.push(values[i]);
  if (!sample.length) return [0, 1];
  sample.sort((a, b) => a - b);
  const at = (share) => sample[Math.min(sample.length - 1, Math.floor(share * sample.length))];
  const low = at(0.01), middle = at(0.5), spread = Math.max(at(0.84) - middle, middle - at(0.16), (at(0.999) - middle) / 8);
  return [low, middle + Math.max(12 * spread, 1e-6) || low + 1];
}
