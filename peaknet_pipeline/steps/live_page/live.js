// The page of a live stream: asks for figures every few seconds, for a picture when there is another one.

const $ = (id) => document.getElementById(id);
const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const COLOUR = Object.fromEntries(["text", "dim", "line", "accent", "warm", "violet", "ground"].map((n) => [n, css(`--${n}`)]));
const POLL_MS = 2000, PICTURE_MS = 4000, SLOWEST_POLL_MS = 15000;
const RINGS_D = [20, 15, 10, 8, 6, 5, 4, 3.5, 3, 2.5, 2.2, 2, 1.8, 1.6, 1.5, 1.4, 1.3, 1.2, 1.1, 1];
const HC = 12398.419843320026; // eV·Å
const NO_VALUE = -32768;
const NAMES = { a: "a", b: "b", c: "c", alpha: "α", beta: "β", gamma: "γ" };

const S = {
  state: null, shown: "hit", pictures: {}, asked: { hit: 0, powder: 0 }, view: null, held: false, wait: POLL_MS, told: 0, lost: false,
};

// ---------------------------------------------------------------- numbers in words
function digits(value, n = 3) {
  if (value === 0) return "0";
  const size = Math.floor(Math.log10(Math.abs(value)));
  return value.toFixed(Math.max(0, Math.min(6, n - 1 - size)));
}
const whole = (value) => (Math.round(value) + 0).toLocaleString("en").replaceAll(",", " ");
const percent = (value) => `${(100 * value).toFixed(1)} %`;
function seconds(value) {
  if (Math.abs(value) < 1e-9) return "0 s";
  if (value < 1) return `${digits(1000 * value, 2)} ms`;
  if (value < 120) return `${digits(value, 2)} s`;
  return value < 7200 ? `${Math.round(value / 60)} min` : `${digits(value / 3600, 2)} h`;
}

// ---------------------------------------------------------------- questions to the server
async function poll() {
  const started = performance.now();
  if (!document.hidden) {
    try {
      const answer = await fetch("live.json");
      if (!answer.ok) throw new Error(answer.status === 401 ? await answer.text() : `status ${answer.status}`);
      S.state = await answer.json();
      S.told = Date.now();
      S.lost = false;
      drawState();
      await fetchPicture();
      // Where others wait, too, this page asks less often.
      const took = performance.now() - started;
      S.wait = took > 1500 ? Math.min(1.5 * S.wait, SLOWEST_POLL_MS) : Math.max(POLL_MS, 0.8 * S.wait);
    } catch (error) {
      S.lost = true;
      S.wait = Math.min(2 * S.wait, SLOWEST_POLL_MS);
    }
  }
  tellStatus();
  setTimeout(poll, S.wait * (0.9 + 0.2 * Math.random()));
}

async function fetchPicture() {
  const name = S.shown, now = performance.now();
  const isNew = name === "powder" || !S.pictures.hit || S.pictures.hit.frame !== S.state.hit;
  if (S.held || !isNew || (S.pictures[name] && now - S.asked[name] < PICTURE_MS)) return;
  S.asked[name] = now;
  const answer = await fetch(`${name}.bin`);
  if (!answer.ok) return;
  const bytes = await answer.arrayBuffer();
  if (!bytes.byteLength || S.held) return;
  const length = new DataView(bytes).getUint32(0, true);
  const header = JSON.parse(new TextDecoder().decode(new Uint8Array(bytes, 4, length)));
  const [height, width] = header.shape;
  const codes = new Int16Array(bytes, 4 + length, width * height);
  S.pictures[name] = { ...header, width, height, codes, limits: autoLimits(codes) };
  paint();
}

// ---------------------------------------------------------------- figures
function drawState() {
  const { state } = S, f = state.figures, indexing = f.indexed !== null;
  $("source").textContent = `\u200e${state.told.source}`;
  $("source").title = state.told.source;
  $("about").textContent = [state.told.finder, `hit: ${state.min_peaks} peaks or more`, state.told.cell].filter(Boolean).join("  ·  ");
  const part = (a, b) => (b ? percent(a / b) : "–");
  const tiles = [
    ["frames", whole(f.frames), `in ${seconds(state.running_s)}`],
    ["hits", part(f.hits, f.frames), `${whole(f.hits)} hits`],
    ["indexed", indexing ? part(f.indexed, f.hits) : "–", indexing ? `${whole(f.indexed)} of ${whole(f.hits)} hits` : "no --cell was given"],
    ["peaks per hit", state.peaks_per_hit === null ? "–" : digits(state.peaks_per_hit), `${whole(f.peaks)} peaks`],
    ["speed", `${digits(f.frames_per_second)}/s`, `mean ${digits(f.mean_frames_per_second)}/s`],
    ["latency", seconds(f.latency_p50_s), `99 %: ${seconds(f.latency_p99_s)}`],
    ["waiting", f.waiting === null ? "–" : whole(f.waiting), f.waiting === null ? "not known" : "frames in the source"],
    ["left out", whole(f.refused), f.refused ? "see the stream's log" : "nothing refused"],
  ];
  $("figures").replaceChildren(...tiles.map(([name, value, more], k) => {
    const tile = document.createElement("div");
    tile.className = k === 7 && f.refused ? "figure worry" : "figure";
    for (const [tag, kind, text] of [["span", "name", name], ["b", "", value], ["small", "", more]]) {
      const part = document.createElement(tag);
      part.className = kind;
      part.textContent = text;
      part.title = text;
      tile.append(part);
    }
    return tile;
  }));
  drawCharts();
}

function tellStatus() {
  $("dot").className = S.lost ? "lost" : S.state ? "live" : "";
  const ago = (Date.now() - S.told) / 1000;
  $("news").textContent = S.lost ? (S.told ? `the stream does not answer; last news ${seconds(ago)} ago` : "the stream does not answer")
    : S.held ? "live, picture held" : "live";
  $("note").textContent = S.pictures[S.shown] ? "" : S.shown === "hit" ? "no hit so far" : "no frame so far";
}

// ---------------------------------------------------------------- charts
function begin(canvas) {
  const ratio = window.devicePixelRatio || 1, box = canvas.getBoundingClientRect();
  canvas.width = Math.max(1, Math.round(box.width * ratio));
  canvas.height = Math.max(1, Math.round(box.height * ratio));
  const c = canvas.getContext("2d");
  c.scale(ratio, ratio);
  c.font = "10.5px system-ui, 'DejaVu Sans', sans-serif";
  return [c, box.width, box.height];
}

function niceStep(span, n) {
  const raw = span / n, size = 10 ** Math.floor(Math.log10(raw));
  return size * [1, 2, 5, 10].find((k) => k * size >= raw);
}

function axes(c, w, h, { top, low = 0, word, hours }) {
  const plot = { x: 44, y: 7, w: w - 50, h: h - 25 };
  const step = niceStep(top - low, 3);
  c.textBaseline = "middle";
  c.textAlign = "right";
  for (let v = Math.ceil(low / step - 1e-9) * step + 0; v <= top + 1e-9 * step; v += step) {
    const y = Math.round(plot.y + plot.h * (1 - (v - low) / (top - low))) + 0.5;
    c.strokeStyle = COLOUR.line;
    c.beginPath(); c.moveTo(plot.x, y); c.lineTo(plot.x + plot.w, y); c.stroke();
    c.fillStyle = COLOUR.dim;
    c.fillText(word(v), plot.x - 6, y);
  }
  if (hours) {
    c.textBaseline = "alphabetic";
    c.fillStyle = COLOUR.dim;
    c.textAlign = "left"; c.fillText(`${seconds(hours)} ago`, plot.x, h - 3);
    c.textAlign = "right"; c.fillText("now", plot.x + plot.w, h - 3);
  }
  return plot;
}

// Lines over time: a value of null breaks a line, so that nothing is drawn where nothing was measured.
function timeChart(id, lines, { word, least }) {
  const [c, w, h] = begin($(id)), { history } = S.state;
  const n = lines[0].values.length, known = lines.flatMap((l) => l.values).filter((v) => v !== null);
  const highest = Math.max(least, ...known), step = niceStep(highest, 3);
  const top = Math.ceil(highest / step - 1e-9) * step;
  const plot = axes(c, w, h, { top, word, hours: n * history.interval_s });
  for (const { values, colour } of lines) {
    c.strokeStyle = c.fillStyle = colour;
    c.lineWidth = 1.6;
    c.lineJoin = "round";
    c.beginPath();
    let open = false;
    values.forEach((v, k) => {
      if (v === null) { open = false; return; }
      const x = plot.x + plot.w * (n > 1 ? k / (n - 1) : 1), y = plot.y + plot.h * (1 - Math.min(v, top) / top);
      open ? c.lineTo(x, y) : c.moveTo(x, y);
      const lonely = !open && (k + 1 >= n || values[k + 1] === null);
      if (lonely) c.fillRect(x - 1.5, y - 1.5, 3, 3);
      open = true;
    });
    c.stroke();
  }
}

function drawCharts() {
  const { history: t, figures } = S.state, indexing = figures.indexed !== null;
  const done = Math.max(1, t.frames.length - 1); // the last interval is not over yet
  const cut = (values) => (values.length > 1 ? values.slice(0, done) : values);
  const ratio = (above, below) => cut(above.map((v, k) => (below[k] ? v / below[k] : null)));
  const lines = [{ values: ratio(t.hits, t.frames), colour: COLOUR.accent }];
  if (indexing) lines.push({ values: ratio(t.indexed, t.hits), colour: COLOUR.warm });
  $("key-indexed").hidden = !indexing;
  timeChart("rates", lines, { word: (v) => `${Math.round(100 * v)} %`, least: 0.1 });
  timeChart("speed", [{ values: cut(t.frames.map((v) => v / t.interval_s)), colour: COLOUR.accent }], { word: (v) => digits(v, 2), least: 1 });
  const delays = [[t.latency_max_s.map((v, k) => (t.frames[k] ? v : null)), COLOUR.warm], [t.latency_mean_s, COLOUR.violet]];
  timeChart("latency", delays.map(([values, colour]) => ({ values: cut(values), colour })), { word: seconds, least: 0.01 });
  timeChart("waiting", [{ values: cut(t.waiting), colour: COLOUR.warm }], { word: whole, least: 10 });
  timeChart("reach", [{ values: cut(t.inv_d), colour: COLOUR.accent }], { word: (v) => (v ? digits(1 / v, 2) : ""), least: 0.2 });
  drawPeakogram();
  drawCells();
}

function drawPeakogram() {
  const [c, w, h] = begin($("peakogram")), { max_inv_d: reach, log10_values: [low, high], counts } = S.state.peakogram;
  const n = counts[0].length, rows = counts.flatMap((column) => column.map((v, k) => (v ? k : -1))).filter((k) => k >= 0);
  if (!reach || !rows.length) {
    c.fillStyle = COLOUR.dim;
    c.textAlign = "center";
    c.fillText(reach ? "no peaks so far" : "needs photon energy and camera length", w / 2, h / 2);
    return;
  }
  const first = Math.max(0, Math.min(...rows) - 1), last = Math.min(n, Math.max(...rows) + 2);
  const value = (k) => low + (high - low) * (k / n), most = Math.max(...counts.flat());
  const plot = { x: 44, y: 6, w: w - 52, h: h - 24 };
  counts.forEach((column, i) => {
    for (let k = first; k < last; k++) {
      if (!column[k]) continue;
      const [r, g, b] = fire(0.18 + 0.82 * Math.log1p(column[k]) / Math.log1p(most));
      c.fillStyle = `rgb(${r} ${g} ${b})`;
      const x = Math.floor(plot.x + plot.w * i / counts.length), x2 = Math.floor(plot.x + plot.w * (i + 1) / counts.length);
      const y2 = Math.floor(plot.y + plot.h * (1 - (k - first) / (last - first))), y = Math.floor(plot.y + plot.h * (1 - (k + 1 - first) / (last - first)));
      c.fillRect(x, y, x2 - x, y2 - y);
    }
  });
  c.strokeStyle = COLOUR.line;
  c.strokeRect(plot.x + 0.5, plot.y + 0.5, plot.w, plot.h);
  c.fillStyle = COLOUR.dim;
  c.textAlign = "right";
  c.textBaseline = "middle";
  for (let e = Math.ceil(value(first)); e <= value(last); e++) {
    const y = plot.y + plot.h * (1 - (e - value(first)) / (value(last) - value(first)));
    c.fillText(e < 4 ? whole(10 ** e) : `10${["⁴", "⁵", "⁶"][e - 4]}`, plot.x - 6, Math.min(Math.max(y, 10), plot.y + plot.h - 4));
  }
  c.textBaseline = "alphabetic";
  c.textAlign = "center";
  let free = -Infinity;
  for (const d of RINGS_D) {
    const x = plot.x + plot.w / d / reach;
    if (1 / d > reach || x - free < 26) continue;
    free = x;
    c.fillRect(x, plot.y + plot.h, 1, 3);
    if (x < w - 16) c.fillText(`${d}`, x, h - 4);
  }
  c.textAlign = "right";
  c.fillText("Å", plot.x + plot.w + 6, h - 4);
}

function drawCells() {
  const { cells, figures, told } = S.state, room = $("cells");
  room.hidden = !cells.length;
  $("no-cells").textContent = cells.length ? "" : told.cell || figures.indexed !== null ? "no lattice so far" : "start the stream with --cell to index hits as they come";
  $("n-cells").textContent = cells.length ? `last ${whole(cells[0].n)} lattices; line: the cell that was given` : "";
  while (room.children.length < cells.length) room.append(document.createElement("canvas"));
  cells.forEach((cell, k) => {
    const [c, w, h] = begin(room.children[k]), base = h - 14, top = 15, n = cell.counts.length, most = Math.max(...cell.counts);
    const bar = w / n, low = cell.target - cell.half, high = cell.target + cell.half, places = cell.unit === "Å" ? 1 : 1;
    c.fillStyle = COLOUR.accent;
    cell.counts.forEach((v, i) => { if (v) c.fillRect(i * bar, base - (base - top) * v / most, Math.max(bar - 1, 1), (base - top) * v / most); });
    c.strokeStyle = COLOUR.line;
    c.beginPath(); c.moveTo(0, base + 0.5); c.lineTo(w, base + 0.5); c.stroke();
    c.strokeStyle = COLOUR.warm;
    c.beginPath(); c.moveTo(w / 2, top - 1); c.lineTo(w / 2, base); c.stroke();
    c.fillStyle = COLOUR.text;
    c.textAlign = "left";
    c.fillText(`${NAMES[cell.name]}  ${cell.median.toFixed(places + 1)} ${cell.unit}`, 0, 10);
    c.fillStyle = COLOUR.dim;
    c.fillText(low.toFixed(places), 0, h - 3);
    c.textAlign = "right";
    c.fillText(high.toFixed(places), w, h - 3);
  });
}

// ---------------------------------------------------------------- the picture
function fire(t) {
  const stops = [[0, [6, 5, 12]], [0.25, [72, 16, 96]], [0.5, [186, 54, 85]], [0.75, [249, 142, 9]], [1, [252, 255, 200]]];
  const k = Math.max(1, stops.findIndex(([at]) => at >= Math.min(t, 1))), [a, low] = stops[k - 1], [b, high] = stops[k];
  return low.map((v, i) => Math.round(v + (high[i] - v) * (Math.min(t, 1) - a) / (b - a)));
}

// Codes between which 1 and 99.9 % of the pixels lie: the background is dark, and weak peaks show.
function autoLimits(codes) {
  const sample = [], step = Math.max(1, Math.floor(codes.length / 50000));
  for (let i = 0; i < codes.length; i += step) if (codes[i] !== NO_VALUE) sample.push(codes[i]);
  if (!sample.length) return [0, 1];
  sample.sort((a, b) => a - b);
  const at = (share) => sample[Math.min(sample.length - 1, Math.floor(share * sample.length))];
  return [at(0.02), Math.max(at(0.5) + 1.5 * (at(0.999) - at(0.5)), at(0.02) + 64)];
}

const valueOf = (p, code) => p.level + p.noise * Math.sinh(code / p.steps);
const SCALES = { linear: (t) => t, sqrt: Math.sqrt, log: (t) => Math.log1p(999 * t) / Math.log(1000) };

function paint() {
  const p = S.pictures[S.shown];
  tellStatus();
  if (!p) return draw();
  const low = valueOf(p, p.limits[0]), span = (valueOf(p, p.limits[1]) - low) * 2 ** -$("bright").value, scale = SCALES[$("scale").value];
  const table = new Uint32Array(65536);
  for (let code = -32767; code < 32768; code++) {
    const t = Math.min(Math.max((valueOf(p, code) - low) / span, 0), 1), [r, g, b] = fire(scale(t));
    table[code + 32768] = (255 << 24 | b << 16 | g << 8 | r) >>> 0;
  }
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [p.width, p.height];
  const c = canvas.getContext("2d"), image = c.createImageData(p.width, p.height), out = new Uint32Array(image.data.buffer);
  for (let i = 0; i < out.length; i++) out[i] = table[p.codes[i] + 32768]; // 0 where there is no value: the ground shows
  c.putImageData(image, 0, 0);
  p.drawn = canvas;
  if (!S.view || S.view.width !== p.width || S.view.height !== p.height) fit();
  draw();
}

function fit() {
  const p = S.pictures[S.shown], box = $("stage").getBoundingClientRect();
  if (!p) return;
  const size = Math.min(box.width / p.width, box.height / p.height) * 0.98;
  S.view = { size, x: (box.width - p.width * size) / 2, y: (box.height - p.height * size) / 2, width: p.width, height: p.height };
}

function draw() {
  const [c] = begin($("picture")), [m, w, h] = begin($("marks")), p = S.pictures[S.shown];
  if (!p || !p.drawn) return;
  const v = S.view, place = ([x, y]) => [v.x + x / p.shrink * v.size, v.y + y / p.shrink * v.size];
  c.imageSmoothingEnabled = v.size < 1;
  c.drawImage(p.drawn, v.x, v.y, p.width * v.size, p.height * v.size);
  const size = Math.min(Math.max(3.5 * v.size / p.shrink, 4), 16);
  if ($("rings").checked) drawRings(m, p, v, place, RINGS_D.filter((d, k) => k % 2 || d < 3), "#ffffff2e", w, h, -1);
  if ($("ice").checked) drawRings(m, p, v, place, p.ice_d, "#5cc8ff66", w, h, 1);
  m.lineWidth = 1.4;
  if ($("lattice").checked) {
    m.strokeStyle = COLOUR.warm;
    for (const { reflections } of p.lattices ?? []) {
      for (const [x, y] of reflections.map(place)) m.strokeRect(x - 1.5 * size, y - 1.5 * size, 3 * size, 3 * size);
    }
  }
  if ($("peaks").checked) {
    m.strokeStyle = COLOUR.accent;
    for (const [x, y] of (p.peaks ?? []).map(place)) { m.beginPath(); m.arc(x, y, size, 0, 7); m.stroke(); }
  }
  tellPicture();
}

function drawRings(m, p, v, place, distances, colour, w, h, side) {
  if (!p.clen_m) return;
  const [x, y] = place(p.centre);
  let free = 0;
  m.strokeStyle = colour;
  m.lineWidth = 1;
  m.textAlign = "center";
  for (const d of distances) {
    const angle = 2 * Math.asin(HC / p.photon_energy_ev / (2 * d));
    const radius = p.clen_m * Math.tan(angle) / p.pixel_m / p.shrink * v.size;
    if (!(angle < Math.PI / 2) || radius < free + 16 || radius > 1.2 * Math.hypot(w, h)) continue;
    free = radius;
    m.beginPath(); m.arc(x, y, radius, 0, 7); m.stroke();
    m.fillStyle = "#ffffff90";
    m.fillText(`${d} Å`, x, y + side * radius + (side > 0 ? 12 : -3));
  }
}

function tellPicture(event) {
  const p = S.pictures[S.shown];
  if (!p) return;
  const lattices = p.lattices ?? [];
  const about = S.shown === "powder" ? "highest value of each pixel so far" : `frame ${p.frame}: ${p.peaks.length} peaks, ` + (
    lattices.length ? `${lattices.length} ${lattices.length > 1 ? "lattices" : "lattice"}: ${lattices[0].cell}` : "no lattice");
  const place = document.createElement("span");
  if (event) {
    const box = $("stage").getBoundingClientRect();
    const x = (event.clientX - box.left - S.view.x) / S.view.size, y = (event.clientY - box.top - S.view.y) / S.view.size;
    const inside = x >= 0 && y >= 0 && x < p.width && y < p.height, code = inside ? p.codes[Math.floor(y) * p.width + Math.floor(x)] : NO_VALUE;
    const radius = Math.hypot(x * p.shrink - p.centre[0], y * p.shrink - p.centre[1]) * p.pixel_m;
    const d = p.clen_m ? HC / p.photon_energy_ev / (2 * Math.sin(Math.atan2(radius, p.clen_m) / 2)) : null;
    place.textContent = (code === NO_VALUE ? "" : `≈ ${digits(valueOf(p, code))}   `) + (d ? `d ${digits(Math.min(d, 9999))} Å` : "");
  }
  const told = document.createElement("span");
  told.textContent = about + (p.shrink > 1 ? `  (highest of ${p.shrink} × ${p.shrink} pixels)` : "");
  $("pointer").replaceChildren(told, place);
}

// ---------------------------------------------------------------- hands
function zoom(factor, x, y) {
  const v = S.view;
  if (!v) return;
  const size = Math.min(Math.max(v.size * factor, 0.05), 60);
  [v.x, v.y, v.size] = [x - (x - v.x) * size / v.size, y - (y - v.y) * size / v.size, size];
  draw();
}

function show(name) {
  S.shown = name;
  for (const other of ["hit", "powder"]) $(`show-${other}`).classList.toggle("on", other === name);
  paint();
  if (S.state) fetchPicture().catch(() => {});
}

function hold() {
  S.held = !S.held;
  $("hold").classList.toggle("on", S.held);
  tellStatus();
}

function brighten(step) {
  $("bright").value = step === null ? 0 : Number($("bright").value) + step;
  paint();
}

const stage = $("marks");
let grip = null;
stage.addEventListener("wheel", (event) => {
  event.preventDefault();
  zoom(1.0015 ** -event.deltaY, event.offsetX, event.offsetY);
}, { passive: false });
stage.addEventListener("pointerdown", (event) => { grip = [event.clientX, event.clientY]; stage.setPointerCapture(event.pointerId); });
stage.addEventListener("pointerup", () => { grip = null; });
stage.addEventListener("pointermove", (event) => {
  if (grip && S.view) {
    S.view.x += event.clientX - grip[0];
    S.view.y += event.clientY - grip[1];
    grip = [event.clientX, event.clientY];
    draw();
  } else if (S.view) tellPicture(event);
});
stage.addEventListener("dblclick", () => { fit(); draw(); });
for (const id of ["peaks", "lattice", "rings", "ice"]) $(id).addEventListener("change", draw);
$("scale").addEventListener("change", paint);
$("bright").addEventListener("input", paint);
$("show-hit").addEventListener("click", () => show("hit"));
$("show-powder").addEventListener("click", () => show("powder"));
$("hold").addEventListener("click", hold);
$("fit").addEventListener("click", () => { fit(); draw(); });
$("help-button").addEventListener("click", () => $("help").showModal());

const toggle = (id) => () => { $(id).checked = !$(id).checked; draw(); };
const nextScale = () => { const s = $("scale"); s.selectedIndex = (s.selectedIndex + 1) % s.length; paint(); };
const KEYS = {
  1: () => show("hit"), 2: () => show("powder"), p: toggle("peaks"), l: toggle("lattice"), r: toggle("rings"), i: toggle("ice"), s: nextScale,
  "+": () => brighten(0.5), "=": () => brighten(0.5), "-": () => brighten(-0.5), a: () => brighten(null),
  f: () => { fit(); draw(); }, " ": hold, "?": () => ($("help").open ? $("help").close() : $("help").showModal()),
};
document.addEventListener("keydown", (event) => {
  const act = KEYS[event.key];
  if (!act || event.ctrlKey || event.metaKey || event.altKey) return;
  event.preventDefault();
  document.activeElement?.blur();
  act();
});
new ResizeObserver(() => { fit(); draw(); if (S.state) drawCharts(); }).observe(document.body);
document.addEventListener("visibilitychange", () => { if (!document.hidden) S.wait = POLL_MS; });
poll();
