// The page of `peaknet view`: what is shown, the keys, and the questions to the server. Pictures are drawn by image.js.

import { Pyramid, REASON_COLOURS, autoLimits, colourTable, draw } from "./image.js";

const $ = (id) => document.getElementById(id);
const PEAK_COLOURS = ["#4cc2ff", "#7ee787", "#ffd866", "#d2a8ff"];
const LATTICE_COLOURS = ["#ff9d5c", "#ff6ec7", "#a5ff4c", "#5cffe4", "#c8b6ff"];
const RINGS_D = [20, 15, 10, 8, 6, 5, 4, 3.5, 3, 2.5, 2.2, 2, 1.8, 1.6, 1.5, 1.4, 1.3, 1.2, 1.1, 1];
const TYPES = { "|u1": Uint8Array, "|i1": Int8Array, "<u2": Uint16Array, "<i2": Int16Array, "<u4": Uint32Array,
  "<i4": Int32Array, "<f4": Float32Array };
const HC = 12398.419843320026; // eV·Å

const S = {
  run: 0, about: null, layout: null, reasons: null, imageReasons: null, frame: 0, raw: null, pyramid: null, marks: null,
  frames: null, order: [], sort: { name: "frame", up: true }, view: { size: 1, x: 0, y: 0 }, low: 0, high: 1,
  shown: { mask: true, rings: true, ice: false }, finders: {}, tuned: null, shapes: [], drawing: null, tool: null,
};
let table = colourTable("fire"), asked = 0;

// ---------------------------------------------------------------- questions to the server
async function ask(path, body) {
  const how = body === undefined ? {} : { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body) };
  const answer = await fetch(`api/${path}`, how);
  if (answer.headers.get("x-dtype")) return new TYPES[answer.headers.get("x-dtype")](await answer.arrayBuffer());
  const told = answer.headers.get("content-type")?.includes("json") ? await answer.json() : { error: await answer.text() };
  if (!answer.ok) throw new Error(told.error ?? answer.statusText);
  return told;
}
const ofRun = (path, body) => ask(`${S.run}/${path}`, body);

async function guarded(step) {
  try { note(""); return await step(); } catch (error) { note(error.message); }
}
function note(text) { $("note").textContent = text; $("note").hidden = !text; }

// ---------------------------------------------------------------- a run, a frame
async function openRun(place) {
  S.run = place;
  S.about = await ofRun("about");
  document.title = `${S.about.name} – PeakNet view`;
  [S.layout, S.reasons, S.frames] = await Promise.all([ofRun("layout"), ofRun("reasons"), ofRun("frames")]);
  S.imageReasons = new Uint8Array(S.layout.length);
  for (let i = 0; i < S.layout.length; i++) S.imageReasons[i] = S.layout[i] ? S.reasons[S.layout[i] - 1] : 255;
  for (const name of [...finders().map(peaksOf), ...sources().map(latticesOf)]) S.shown[name] ??= true;
  S.shapes = []; S.drawing = null; S.tuned = null; S.limits = false;
  $("total").textContent = `of ${S.about.n_frames}`;
  $("number").max = S.about.n_frames - 1;
  $("next-rank").hidden = !S.frames.rank;
  $("next-dispute").disabled = !S.frames.frame.some((_, i) => disputed(i));
  $("next-missed").disabled = !S.frames.frame.some((_, i) => missed(i));
  $("next-hit").disabled = !S.frames.frame.some((_, i) => isHit(i));
  fit(); makeTable(); makeForm(); countMask();
  await show(Math.max(0, S.frames.frame.findIndex((_, i) => isHit(i))));
}

async function show(number, { keep = false } = {}) {
  if (!Number.isFinite(number)) return;
  S.frame = Math.min(Math.max(0, Math.trunc(number)), S.about.n_frames - 1);
  $("number").value = S.frame;
  const mine = ++asked, busy = setTimeout(() => { $("busy").hidden = false; }, 250);
  await guarded(async () => {
    const what = $("powder").value ? `powder/${$("powder").value}` : `frame/${S.frame}`;
    const [raw, marks] = await Promise.all([ofRun(what), ofRun(`marks/${S.frame}`)]);
    if (mine !== asked) return; // a later frame was asked for meanwhile
    if (!keep) S.tuned = null;
    S.raw = raw; S.marks = marks;
    place();
    if (!S.limits) autoContrast();
    paint(); tell(); markLine();
    if (!$("tune").hidden) tune();
  });
  clearTimeout(busy); if (mine === asked) $("busy").hidden = true;
}

function place() {
  const values = new Float32Array(S.layout.length);
  for (let i = 0; i < values.length; i++) if (S.layout[i]) values[i] = S.raw[S.layout[i] - 1];
  S.values = values;
  S.pyramid = new Pyramid(values, S.imageReasons, S.about.image[1], S.about.image[0]);
}

function autoContrast() {
  [S.low, S.high] = autoLimits(S.values, S.imageReasons);
  if (S.imageReasons.every((why) => why !== 0)) [S.low, S.high] = [0, 1];
  $("low").value = Number(S.low.toPrecision(4)); $("high").value = Number(S.high.toPrecision(4));
}

// ---------------------------------------------------------------- columns of frames
const finders = () => S.about.finders, sources = () => Object.keys(S.about.sources);
const peaksOf = (name) => `peaks ${name}`, latticesOf = (name) => `lattices ${name}`; // columns of the table, and what is shown
const isHitOf = (i, name) => S.frames[`hit ${name}`][i] > 0;
const isHit = (i) => finders().some((name) => isHitOf(i, name));
const isIndexedBy = (i, name) => S.frames[latticesOf(name)][i] > 0;
const isIndexed = (i) => sources().some((name) => isIndexedBy(i, name));
const missed = (i) => isHit(i) && !isIndexed(i);
function disputed(i) {
  const lists = sources().filter((name) => S.about.sources[name]);
  const differ = (names, test) => names.length > 1 && new Set(names.map((name) => test(i, name))).size > 1;
  return differ(finders(), isHitOf) || differ(lists, isIndexedBy);
}

function seek(test, step = 1) {
  const n = S.about.n_frames;
  for (let k = 1; k <= n; k++) {
    const i = ((S.frame + step * k) % n + n) % n;
    if (test(i)) return show(i);
  }
  note("There is no such frame.");
}
function nextRank() {
  if (!S.frames.rank) return;
  const now = S.frames.rank[S.frame] ?? 0;
  const later = S.frames.rank.map((rank, i) => [rank, i]).filter(([rank]) => rank !== null && rank > now).sort((a, b) => a[0] - b[0]);
  const all = S.frames.rank.indexOf(1);
  show(later.length ? later[0][1] : all);
}

// ---------------------------------------------------------------- drawing
function paint() {
  if (!S.pyramid) return;
  const stage = $("stage").getBoundingClientRect(), image = $("image"), marks = $("marks"), dpr = window.devicePixelRatio || 1;
  image.width = Math.max(1, Math.round(stage.width)); image.height = Math.max(1, Math.round(stage.height));
  marks.width = Math.round(stage.width * dpr); marks.height = Math.round(stage.height * dpr);
  draw(image, S.pyramid, S.view, { low: S.low, high: S.high, scale: $("scale").value, table, showMask: S.shown.mask });
  const c = marks.getContext("2d");
  c.setTransform(dpr, 0, 0, dpr, 0, 0);
  c.clearRect(0, 0, stage.width, stage.height);
  if (S.shown.rings) drawRings(c, visibleRings(), "#ffffff40", "#ffffffa0");
  if (S.shown.ice) drawRings(c, S.about.ice_d, "#5ac8fa70", "#5ac8fa");
  if (!$("powder").value) drawMarks(c);
  drawShapes(c);
}
const toCanvas = (x, y) => [S.view.x + x * S.view.size, S.view.y + y * S.view.size];

function ringRadius(d) {
  const energy = S.marks?.photon_energy_ev ?? S.about.photon_energy_ev;
  if (!energy || !S.about.panel_table) return NaN;
  const sine = HC / energy / (2 * d);
  if (sine >= Math.SQRT1_2) return NaN;
  const z = S.about.panel_table.reduce((sum, panel) => sum + panel[0][2], 0) / S.about.panel_table.length;
  return z * Math.tan(2 * Math.asin(sine)) / S.about.pixel_m;
}
function visibleRings() {
  const reach = Math.hypot(...S.about.image), chosen = [];
  let last = 0;
  for (const d of RINGS_D) {
    const radius = ringRadius(d);
    if (radius < reach && (radius - last) * S.view.size > 60) { chosen.push(d); last = radius; }
  }
  return chosen;
}
function drawRings(c, list, stroke, ink) {
  const [left, top] = S.about.origin, [x, y] = toCanvas(-left, top);
  c.lineWidth = 1; c.font = "11px system-ui, DejaVu Sans, sans-serif"; c.strokeStyle = stroke; c.fillStyle = ink;
  for (const d of list) {
    const radius = ringRadius(d) * S.view.size;
    if (!(radius > 0)) continue;
    c.beginPath(); c.arc(x, y, radius, 0, 2 * Math.PI); c.stroke();
    for (const angle of [-0.78, 2.36]) c.fillText(`${d} Å`, x + radius * Math.cos(angle) + 3, y + radius * Math.sin(angle));
  }
  c.beginPath(); c.moveTo(x - 8, y); c.lineTo(x + 8, y); c.moveTo(x, y - 8); c.lineTo(x, y + 8); c.stroke();
}

function drawMarks(c) {
  if (!S.marks) return;
  const size = Math.max(4.5, 3 * S.view.size);
  sources().forEach((name) => {
    const found = S.marks.lattices[name];
    if (!S.shown[latticesOf(name)]) return;
    found.x.forEach((x, i) => {
      const [px, py] = toCanvas(x, found.y[i]);
      c.strokeStyle = LATTICE_COLOURS[found.lattice[i] % LATTICE_COLOURS.length];
      c.lineWidth = 1.2; c.strokeRect(px - size * 1.5, py - size * 1.5, 3 * size, 3 * size);
      if (S.view.size >= 6) { c.fillStyle = c.strokeStyle; c.fillText(found.hkl[i].join(" "), px + size * 1.6, py + 3); }
    });
  });
  finders().forEach((name, k) => { if (S.shown[peaksOf(name)]) circles(c, S.marks.peaks[name], PEAK_COLOURS[k % 4], size * (1 + 0.28 * k)); });
  if (S.tuned && !$("tune").hidden) circles(c, S.tuned.peaks, "#ffffff", size * 0.8, [3, 2]);
}
function circles(c, peaks, stroke, radius, dash = []) {
  c.strokeStyle = stroke; c.lineWidth = 1.4; c.setLineDash(dash);
  peaks.x.forEach((x, i) => { const [px, py] = toCanvas(x, peaks.y[i]); c.beginPath(); c.arc(px, py, radius, 0, 2 * Math.PI); c.stroke(); });
  c.setLineDash([]);
}
function drawShapes(c) {
  c.strokeStyle = "#ff7b72"; c.fillStyle = "#ff7b7240"; c.lineWidth = 1.5;
  for (const shape of [...S.shapes, ...(S.drawing ? [S.drawing] : [])]) {
    c.beginPath();
    const [x, y] = toCanvas(...shape.points[0]);
    if (shape.kind === "circle") c.arc(x, y, (shape.radius ?? 0) * S.view.size, 0, 2 * Math.PI);
    else if (shape.kind === "pixel") {
      const [a, b] = toCanvas(Math.floor(shape.points[0][0]), Math.floor(shape.points[0][1]));
      c.rect(a, b, Math.max(S.view.size, 3), Math.max(S.view.size, 3));
    } else shape.points.forEach((p, i) => (i ? c.lineTo(...toCanvas(...p)) : c.moveTo(x, y)));
    if (shape !== S.drawing) c.closePath();
    c.fill(); c.stroke();
  }
}

// ---------------------------------------------------------------- what is told beside the picture
function tell() {
  const layers = $("layers"); layers.replaceChildren();
  const add = (name, text, shade, count, square) => {
    const line = document.createElement("label"), box = document.createElement("input"), swatch = document.createElement("span");
    line.className = "layer"; box.type = "checkbox"; box.checked = S.shown[name];
    box.addEventListener("change", () => { S.shown[name] = box.checked; paint(); });
    swatch.className = square ? "swatch square" : "swatch"; swatch.style.borderColor = shade;
    line.append(box, swatch, text);
    if (count !== undefined) { const n = document.createElement("span"); n.className = "n"; n.textContent = count; line.append(n); }
    layers.append(line);
  };
  finders().forEach((name, k) => add(peaksOf(name), `peaks: ${name}`, PEAK_COLOURS[k % 4], S.marks.peaks[name].x.length));
  sources().forEach((name) => add(latticesOf(name), `predicted: ${name}`, LATTICE_COLOURS[0], S.marks.lattices[name].x.length, true));
  add("rings", "resolution", "#ffffff80"); add("ice", "ice rings", "#5ac8fa");
  add("mask", "bad pixels by reason", rgb(REASON_COLOURS[0]), undefined, true);
  if (S.shown.mask) S.about.reasons.forEach((name, k) => {
    const line = document.createElement("div"), swatch = document.createElement("span"), n = document.createElement("span");
    line.className = "layer"; swatch.className = "swatch square"; swatch.style.borderColor = rgb(REASON_COLOURS[k % 8]);
    swatch.style.marginLeft = "21px"; n.className = "n"; n.textContent = S.about.n_bad[k].toLocaleString("en");
    line.append(swatch, name, n); layers.append(line);
  });
  const facts = $("facts"); facts.replaceChildren();
  const fact = (name, value) => {
    const dt = document.createElement("dt"), dd = document.createElement("dd");
    dt.textContent = name; dd.textContent = value; facts.append(dt, dd);
  };
  fact("event", S.marks.event || String(S.frame));
  if (S.marks.photon_energy_ev) fact("photon energy", `${S.marks.photon_energy_ev.toFixed(1)} eV`);
  finders().forEach((name) => fact(`hit, ${name}`, isHitOf(S.frame, name) ? "yes" : `no (fewer than ${S.about.min_peaks} peaks that count)`));
  if (S.frames.reason?.[S.frame]) fact(`rank ${S.frames.rank[S.frame]}`, S.frames.reason[S.frame]);
  fact("detector", `${S.about.panels.length} panels, ${(S.about.shape.reduce((a, b) => a * b) / 1e6).toFixed(2)} Mpix`);
  if (S.about.cell) fact("cell", S.about.cell);
  fact("file", S.about.path);
  const box = $("lattices"); box.replaceChildren();
  let n = 0;
  sources().forEach((name) => S.marks.lattices[name].lattices.forEach((lattice, k) => {
    const card = document.createElement("div"), first = document.createElement("div"), second = document.createElement("div");
    card.className = "lattice"; card.style.borderLeftColor = LATTICE_COLOURS[k % LATTICE_COLOURS.length];
    first.textContent = lattice.n_explained === undefined ? `${name}, ${lattice.score} nats`
      : `${name}: explains ${lattice.n_explained} of ${lattice.n_peaks} peaks`;
    second.className = "dim"; second.textContent = lattice.cell;
    card.append(first, second); box.append(card); n++;
  }));
  if (!n) box.textContent = sources().length ? "None in this frame." : "No lattices were given.";
}
const rgb = (c) => `rgb(${c.join(",")})`;

function pointAt(event) {
  const box = $("stage").getBoundingClientRect();
  return [(event.clientX - box.left - S.view.x) / S.view.size, (event.clientY - box.top - S.view.y) / S.view.size];
}
function tellPixel(event) {
  if (!S.values) return;
  const [x, y] = pointAt(event).map(Math.floor), [rows, columns] = S.about.image;
  const flat = x >= 0 && y >= 0 && x < columns && y < rows ? S.layout[y * columns + x] : 0;
  if (!flat) { $("status").textContent = " "; return; }
  const [, nss, nfs] = S.about.shape, at = flat - 1, panel = Math.floor(at / (nss * nfs));
  const ss = Math.floor(at / nfs) % nss, fs = at % nfs, why = S.reasons[at], parts = [];
  parts.push(`${S.about.panels[panel]}  ss ${ss}  fs ${fs}`, `value ${Number(S.raw[at].toPrecision(7))}`);
  if (why) parts.push(`bad: ${S.about.reasons[why - 1]}`);
  const energy = S.marks?.photon_energy_ev ?? S.about.photon_energy_ev, vectors = S.about.panel_table?.[panel];
  if (vectors && energy) {
    const [px, py, pz] = [0, 1, 2].map((i) => vectors[0][i] + (fs + 0.5) * vectors[1][i] + (ss + 0.5) * vectors[2][i]);
    const inverse = 2 * Math.sin(Math.atan2(Math.hypot(px, py), pz) / 2) * energy / HC;
    parts.push(`1/d ${inverse.toFixed(4)} Å⁻¹`, `d ${(1 / inverse).toFixed(2)} Å`);
  }
  const near = nearest(x + 0.5, y + 0.5);
  if (near) parts.push(near);
  $("status").textContent = parts.join("     ");
}
function nearest(x, y) {
  let best = 6, told = "";
  for (const name of finders()) {
    const peaks = S.marks.peaks[name];
    if (S.shown[peaksOf(name)]) peaks.x.forEach((px, i) => {
      const distance = Math.hypot(px - x, peaks.y[i] - y);
      if (distance < best) {
        best = distance;
        told = `${name}: intensity ${peaks.intensity[i]?.toPrecision(4)}, SNR ${peaks.snr[i]?.toPrecision(3)}` +
          (peaks.score[i] === null ? "" : `, score ${peaks.score[i].toPrecision(3)}`);
      }
    });
  }
  return told;
}

// ---------------------------------------------------------------- zoom
function fit() {
  const box = $("stage").getBoundingClientRect(), [rows, columns] = S.about.image;
  const size = 0.97 * Math.min(box.width / columns, box.height / rows);
  S.view = { size, x: (box.width - size * columns) / 2, y: (box.height - size * rows) / 2 };
}
function zoom(factor, x, y) {
  const size = Math.min(Math.max(S.view.size * factor, 0.02), 80), real = size / S.view.size;
  S.view = { size, x: x - (x - S.view.x) * real, y: y - (y - S.view.y) * real };
  repaint();
}
let waiting = false;
function repaint() {
  if (waiting) return;
  waiting = true;
  requestAnimationFrame(() => { waiting = false; paint(); });
}

// ---------------------------------------------------------------- table of frames
function makeTable() {
  const filters = { all: () => true, hits: isHit, indexed: isIndexed, missed, dispute: disputed };
  const keep = filters[$("filter").value], names = Object.keys(S.frames), { name, up } = S.sort;
  const column = S.frames[names.includes(name) ? name : "frame"];
  S.order = S.frames.frame.filter((i) => keep(i)).sort((a, b) => {
    const [p, q] = [column[a], column[b]];
    if (p === q) return a - b;
    if (p === null || q === null) return p === null ? 1 : -1;
    return (p < q ? -1 : 1) * (up ? 1 : -1);
  });
  $("count").textContent = `${S.order.length} of ${S.about.n_frames}`;
  $("table-head").replaceChildren(...names.map((n) => {
    const span = document.createElement("span");
    span.textContent = n + (n === S.sort.name ? (S.sort.up ? " ▲" : " ▼") : "");
    span.className = n === S.sort.name ? "sorted" : "";
    span.addEventListener("click", () => { S.sort = { name: n, up: n === S.sort.name ? !S.sort.up : n === "frame" || n === "rank" }; makeTable(); });
    return span;
  }));
  $("table-body").style.height = `${24 * S.order.length}px`;
  rows();
}
function rows() {
  const box = $("table"), first = Math.max(0, Math.floor(box.scrollTop / 24) - 4), names = Object.keys(S.frames);
  const last = Math.min(S.order.length, first + Math.ceil((box.clientHeight || 600) / 24) + 8), lines = [];
  for (let k = first; k < last; k++) {
    const line = document.createElement("div"), i = S.order[k];
    line.className = i === S.frame ? "line on" : "line"; line.style.top = `${24 * k}px`;
    line.append(...names.map((n) => { const s = document.createElement("span"); s.textContent = S.frames[n][i] ?? "–"; s.title = s.textContent; return s; }));
    line.addEventListener("click", () => show(i));
    lines.push(line);
  }
  $("table-body").replaceChildren(...lines);
}
function markLine() {
  const at = S.order.indexOf(S.frame), box = $("table");
  if (at >= 0 && box.clientHeight && (24 * at < box.scrollTop || 24 * at + 24 > box.scrollTop + box.clientHeight)) box.scrollTop = 24 * at - box.clientHeight / 2;
  rows();
}

// ---------------------------------------------------------------- tuning
function makeForm() {
  const form = S.forms[$("finder").value], box = $("settings");
  $("finder-meaning").textContent = form.meaning;
  box.replaceChildren(...form.settings.map((item) => {
    const line = document.createElement("div"), label = document.createElement("label"), name = document.createElement("span");
    line.className = "setting"; name.textContent = item.name; name.title = item.meaning ?? "";
    const value = document.createElement(item.choices ? "select" : "input");
    if (item.choices) value.append(...item.choices.map((c) => new Option(c)));
    else if (typeof item.default === "number") { value.type = "number"; value.step = "any"; }
    value.value = item.default;
    value.addEventListener("input", () => { if (slider) slider.value = value.value; changed(line, value, item); });
    label.append(name, value); line.append(label);
    let slider = null;
    if (typeof item.default === "number" && !item.choices) {
      slider = document.createElement("input"); slider.type = "range";
      const low = item.low ?? 0, high = Math.min(item.high ?? Infinity, Math.max(4 * item.default, low + 10));
      slider.min = low; slider.max = high; slider.step = Number.isInteger(item.default) && high - low > 8 ? 1 : (high - low) / 200;
      slider.value = item.default;
      slider.addEventListener("input", () => { value.value = Number(Number(slider.value).toPrecision(4)); changed(line, value, item); });
      line.append(slider);
    }
    const meaning = document.createElement("div"); meaning.className = "dim";
    meaning.textContent = (item.meaning ?? "") + (item.unit ? ` (${item.unit})` : "");
    line.append(meaning);
    line.read = () => (typeof item.default === "number" ? Number(value.value) : value.value);
    line.item = item;
    return line;
  }));
  $("sampled").textContent = ""; yaml(); tune();
}
let tuneTimer = 0;
function changed(line, value, item) {
  line.classList.toggle("changed", String(line.read()) !== String(item.default));
  yaml(); clearTimeout(tuneTimer); tuneTimer = setTimeout(tune, 120);
}
function settings() {
  const chosen = {};
  for (const line of $("settings").children) if (String(line.read()) !== String(line.item.default)) chosen[line.item.name] = line.read();
  return chosen;
}
function yaml() {
  const finder = $("finder").value, form = S.forms[finder], chosen = settings();
  const lines = Object.entries(chosen).map(([name, value]) => `${name}: ${value}`);
  if (form.section === null) {
    const set = Object.entries(chosen).map(([name, value]) => `--set ${name}=${value}`).join(" ");
    $("yaml").textContent = `peaknet find RUN --finder ${finder} ${set}`.trim();
    return;
  }
  const body = lines.length ? `${form.section}: {${lines.join(", ")}}` : `# ${form.section}: all defaults`;
  $("yaml").textContent = `classical_finder: ${finder}\n${body}`;
}
let tuning = 0;
async function tune() {
  if ($("tune").hidden || !S.about) return;
  const mine = ++tuning;
  await guarded(async () => {
    const found = await ofRun("find", { frame: S.frame, finder: $("finder").value, settings: settings(), index: true });
    if (mine !== tuning) return;
    S.tuned = found;
    const lattices = found.n_lattices === null ? "" : found.n_lattices ? `, ${found.n_lattices} lattice(s)` : ", no lattice";
    $("tuned").textContent = `This frame: ${found.n_peaks} peaks${found.is_hit ? ", a hit" : ""}${lattices}.`;
    paint();
  });
}
async function sample() {
  const n = Math.min(Number($("sample-size").value) || 24, S.about.n_frames), chosen = settings(), finder = $("finder").value;
  let hits = 0, indexed = 0, peaks = 0, cell = false;
  $("sample").disabled = true;
  await guarded(async () => {
    for (let k = 0; k < n; k++) {
      const frame = Math.floor((k + 0.5) * S.about.n_frames / n);
      const found = await ofRun("find", { frame, finder, settings: chosen, index: true });
      hits += found.is_hit; peaks += found.n_peaks; indexed += found.n_lattices > 0; cell ||= found.n_lattices !== null;
      $("sampled").textContent = `${k + 1} of ${n} frames: ${hits} hits` + (cell ? `, ${indexed} indexed` : "") +
        `, ${(peaks / (k + 1)).toFixed(0)} peaks a frame.`;
    }
  });
  $("sample").disabled = false;
}

// ---------------------------------------------------------------- drawing a mask
function setTool(kind) {
  S.tool = S.tool === kind ? null : kind; S.drawing = null;
  for (const button of $("shapes-tools").querySelectorAll("[data-shape]")) button.classList.toggle("on", button.dataset.shape === S.tool);
  paint();
}
function addPoint(point) {
  if (S.tool === "pixel") { S.shapes.push({ kind: "pixel", points: [point] }); countMask(); }
  else if (S.tool === "circle") {
    if (S.drawing) { S.drawing.radius = Math.hypot(point[0] - S.drawing.points[0][0], point[1] - S.drawing.points[0][1]); closeShape(); }
    else S.drawing = { kind: "circle", points: [point], radius: 0 };
  } else if (S.drawing) S.drawing.points.push(point);
  else S.drawing = { kind: "polygon", points: [point] };
  paint();
}
function closeShape() {
  const shape = S.drawing;
  if (!shape) return;
  S.drawing = null;
  if (shape.kind !== "polygon" || shape.points.length >= 3) S.shapes.push(shape);
  countMask(); paint();
}
async function countMask() {
  $("save-mask").disabled = !S.shapes.length; $("undo").disabled = !S.shapes.length && !S.drawing;
  if (!S.shapes.length) { $("mask-count").textContent = "Nothing is drawn yet."; return; }
  await guarded(async () => {
    const { n_pixels: n } = await ofRun("mask/count", { shapes: S.shapes });
    $("mask-count").textContent = `${S.shapes.length} shape(s), ${n.toLocaleString("en")} pixels.`;
  });
}
async function saveMask() {
  await guarded(async () => {
    const { path, n_pixels: n } = await ofRun("mask/save", { shapes: S.shapes });
    $("mask-saved").hidden = false;
    $("mask-saved").textContent = `${n.toLocaleString("en")} pixels in ${path}\n\npeaknet find … --mask ${path}\n\n# experiment.yaml\nmask: {mask_files: [${path}]}`;
  });
}

// ---------------------------------------------------------------- what the user does
function tab(name) {
  for (const button of $("tabs").children) {
    button.classList.toggle("on", button.dataset.tab === name);
    $(button.dataset.tab).hidden = button.dataset.tab !== name;
  }
  if (name !== "mask") { S.tool = null; S.drawing = null; setTool(null); }
  if (name === "list") markLine();
  if (name === "tune") tune(); else paint();
}
const toggle = (name) => { if (name in S.shown) { S.shown[name] = !S.shown[name]; tell(); paint(); } };
const KEYS = {
  ArrowRight: ["next frame", () => show(S.frame + 1)], ArrowLeft: ["previous frame", () => show(S.frame - 1)],
  n: ["next hit", () => seek(isHit)], N: ["previous hit", () => seek(isHit, -1)],
  u: ["next hit without a lattice", () => seek(missed)], d: ["next frame on which the finders disagree", () => seek(disputed)],
  r: ["next by rank of curation", nextRank],
  p: ["virtual powder and back", () => { $("powder").value = $("powder").value ? "" : "max"; S.limits = false; show(S.frame); }],
  a: ["contrast by the frame's values", () => { S.limits = false; autoContrast(); paint(); }],
  f: ["whole detector", () => { fit(); paint(); }],
  "+": ["zoom in", () => centred(1.4)], "-": ["zoom out", () => centred(1 / 1.4)],
  m: ["bad pixels", () => toggle("mask")], i: ["resolution rings", () => toggle("rings")], o: ["ice rings", () => toggle("ice")],
  l: ["predicted reflections", () => sources().map(latticesOf).forEach(toggle)],
  1: ["peaks of the first finder", () => toggle(peaksOf(finders()[0]))], 2: ["peaks of the second finder", () => toggle(peaksOf(finders()[1]))],
  Enter: ["close a polygon", closeShape], Escape: ["give a shape up", () => { S.drawing = null; paint(); }],
  "?": ["this list", () => $("keys").showModal()],
};
const centred = (factor) => { const box = $("stage").getBoundingClientRect(); zoom(factor, box.width / 2, box.height / 2); };

function listen() {
  const stage = $("marks");
  let held = null, moved = false;
  stage.addEventListener("pointerdown", (e) => { held = [e.clientX, e.clientY]; moved = false; stage.setPointerCapture(e.pointerId); });
  stage.addEventListener("pointermove", (e) => {
    if (held) {
      const [dx, dy] = [e.clientX - held[0], e.clientY - held[1]];
      if (moved || Math.hypot(dx, dy) > 3) { moved = true; held = [e.clientX, e.clientY]; S.view.x += dx; S.view.y += dy; repaint(); }
    } else if (S.drawing?.kind === "circle") {
      const [x, y] = pointAt(e); S.drawing.radius = Math.hypot(x - S.drawing.points[0][0], y - S.drawing.points[0][1]); repaint();
    }
    tellPixel(e);
  });
  stage.addEventListener("pointerup", (e) => { if (held && !moved && S.tool) addPoint(pointAt(e)); held = null; });
  stage.addEventListener("dblclick", closeShape);
  stage.addEventListener("wheel", (e) => {
    e.preventDefault();
    const box = $("stage").getBoundingClientRect(); zoom(Math.exp(-e.deltaY * 0.0015), e.clientX - box.left, e.clientY - box.top);
  }, { passive: false });
  window.addEventListener("resize", paint);
  document.addEventListener("keydown", (e) => {
    if (/INPUT|SELECT|TEXTAREA/.test(e.target.tagName) && e.target.type !== "checkbox" && e.target.type !== "range") return;
    if (e.ctrlKey || e.metaKey || e.altKey || !KEYS[e.key] || $("keys").open) return;
    e.preventDefault(); KEYS[e.key][1]();
  });
  $("run").addEventListener("change", (e) => guarded(() => openRun(Number(e.target.value))));
  $("number").addEventListener("change", (e) => show(Number(e.target.value)));
  const clicks = { previous: () => show(S.frame - 1), next: () => show(S.frame + 1), "next-hit": () => seek(isHit),
    "next-missed": () => seek(missed), "next-dispute": () => seek(disputed), "next-rank": nextRank, auto: KEYS.a[1], fit: KEYS.f[1],
    help: () => $("keys").showModal(), "close-keys": () => $("keys").close(), defaults: makeForm, sample, undo: () => {
      if (S.drawing) S.drawing = null; else S.shapes.pop();
      countMask(); paint();
    }, "save-mask": saveMask, "copy-yaml": () => navigator.clipboard?.writeText($("yaml").textContent) };
  for (const [id, step] of Object.entries(clicks)) $(id).addEventListener("click", step);
  $("powder").addEventListener("change", () => { S.limits = false; show(S.frame, { keep: true }); });
  $("scale").addEventListener("change", paint);
  $("colours").addEventListener("change", (e) => { table = colourTable(e.target.value); paint(); });
  for (const id of ["low", "high"]) $(id).addEventListener("change", () => { S.limits = true; S.low = Number($("low").value); S.high = Number($("high").value); paint(); });
  $("filter").addEventListener("change", makeTable); $("finder").addEventListener("change", makeForm);
  $("table").addEventListener("scroll", rows);
  for (const button of $("tabs").children) button.addEventListener("click", () => tab(button.dataset.tab));
  for (const button of $("shapes-tools").querySelectorAll("[data-shape]")) button.addEventListener("click", () => setTool(button.dataset.shape));
  $("key-table").replaceChildren(...Object.entries(KEYS).map(([key, [meaning]]) => {
    const row = document.createElement("tr"), cell = document.createElement("td"), k = document.createElement("kbd"), m = document.createElement("td");
    k.textContent = { ArrowRight: "→", ArrowLeft: "←" }[key] ?? key; cell.append(k); m.textContent = meaning; row.append(cell, m);
    return row;
  }));
}

async function start() {
  const { runs, finders: forms } = await ask("runs");
  S.forms = forms;
  $("run").append(...runs.map((name, k) => new Option(name, k)));
  $("finder").append(...Object.keys(forms).map((name) => new Option(name)));
  listen();
  await openRun(0);
  document.body.dataset.ready = "yes";
}
guarded(start);
