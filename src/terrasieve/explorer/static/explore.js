"use strict";
// The page of `terrasieve explore`: two panels of one selection, drawn by deck.gl; columns come as base64 in data/*.js.
const T = globalThis.TERRASIEVE;
const FACTS = T.facts, IDS = T.ids, COUNT = IDS.length;
const element = (id) => document.getElementById(id);
const number = new Intl.NumberFormat("en");
const MOST_SHOWN = 120; // entries of the strip; more would only slow the page down
const MOST_NAMED = 40; // classes in the legend; beyond those with a colour of their own, all are grey
const DIMMED = 26, FULL = 215; // opacity of what is not selected, and of all else, of 255
const RADIUS = COUNT < 2000 ? 4 : COUNT < 20000 ? 3 : COUNT < 60000 ? 2 : 1.25; // pixels
// Cividis (Nuñez et al. 2018), which reads alike with every kind of colour vision.
const RAMP = [[0, 34, 78], [18, 53, 112], [59, 73, 108], [87, 93, 109], [112, 113, 115], [138, 134, 120], [165, 156, 116],
  [195, 179, 105], [225, 204, 85], [254, 232, 56]];
const dark = matchMedia("(prefers-color-scheme: dark)");

function column(name, Type) {
  const raw = atob(T[name]);
  delete T[name]; // the text is larger than what it says
  const bytes = new Uint8Array(raw.length);
  for (let i = 0; i < raw.length; i++) bytes[i] = raw.charCodeAt(i);
  return new Type(bytes.buffer);
}

// Each panel has rows of its own in an order of its own, the first of them spread over all; and their positions.
const panels = { plane: { rows: spreadOrder(COUNT) } };
panels.plane.positions = gathered(column("plane", Float32Array), panels.plane.rows, 2);
if (FACTS.located) {
  const located = column("located", Int32Array), order = spreadOrder(located.length);
  const positions = gathered(column("places", Float32Array), order, 2); // longitude and latitude
  panels.map = { rows: gathered(located, order, 1), positions };
}
const codes = column("codes", Int8Array);
const thumbs = FACTS.atlas ? column("thumbs", Int32Array) : null;
const columns = FACTS.columns.map((one) => ({
  ...one, values: column(one.key, one.kind === "category" ? Int32Array : Float32Array),
}));
const DIMS = codes.length / COUNT;

const state = { selected: new Uint8Array(COUNT), count: 0, focus: -1, ranked: null, note: "", colour: 0, boxing: false };

// ------------------------------------------------------------------ colours

function variable(name) {
  const text = getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  return [1, 3, 5].map((at) => parseInt(text.slice(at, at + 2), 16));
}

function ramp(share) {
  // The end that would vanish into the background is left out.
  const [low, high] = dark.matches ? [0.3, 1] : [0, 0.9], place = (low + (high - low) * share) * (RAMP.length - 1), at = Math.min(RAMP.length - 2, Math.floor(place));
  return RAMP[at].map((one, i) => one + (RAMP[at + 1][i] - one) * (place - at));
}

// One colour of the palette has one meaning: rarer categories share one grey.
function palette() {
  return [...Array(FACTS.colours).keys()].map((i) => variable(`--class-${i}`));
}

function colourOf(one, known, grey) {
  if (one.kind === "category") return (value) => known[value] ?? grey;
  const steps = [...Array(256).keys()].map((i) => ramp(i / 255)), span = one.high - one.low || 1;
  return (value) => (value === value ? steps[Math.max(0, Math.min(255, Math.round((255 * (value - one.low)) / span)))] : grey);
}

function paint() {
  const colours = new Uint8Array(4 * COUNT), one = columns[state.colour];
  const plain = one ? null : variable("--class-0"), colour = one && colourOf(one, palette(), variable("--faint"));
  for (let i = 0; i < COUNT; i++) {
    const [r, g, b] = plain ?? colour(one.values[i]);
    colours[4 * i] = r; colours[4 * i + 1] = g; colours[4 * i + 2] = b;
    colours[4 * i + 3] = state.count && !state.selected[i] ? DIMMED : FULL;
  }
  return colours;
}

// ------------------------------------------------------------------- panels

function ring(position) {
  return new deck.ScatterplotLayer({
    id: "ring", data: position ? [position] : [], getPosition: (one) => one, filled: false, stroked: true,
    lineWidthUnits: "pixels", getLineWidth: 2.5, radiusUnits: "pixels", getRadius: RADIUS + 5, getLineColor: variable("--ink"),
  });
}

function draw() {
  const colours = paint();
  for (const panel of Object.values(panels)) {
    panel.data = { length: panel.rows.length, attributes: { getPosition: { value: panel.positions, size: 2 },
      getFillColor: { value: gathered(colours, panel.rows, 4), size: 4, normalized: true } } };
    show(panel);
  }
}

function show({ rows, positions, data, motion, deck: shown, View, view }) {
  const at = rows.indexOf(state.focus), views = [new View({ ...view, clear: true, clearColor: variable("--surface") })];
  const land = shown === panels.map?.deck && new deck.GeoJsonLayer({ id: "land", data: T.land, stroked: false,
    _subLayerProps: { "polygons-fill": { type: LandLayer } }, parameters: { blend: false },
    getFillColor: variable("--land"), updateTriggers: { getFillColor: dark.matches } });
  // Nothing is pointed at while the view moves: looking for it draws all dots once more.
  const dots = new DotsLayer({ id: "dots", data, pickable: !motion.moves, radius: RADIUS, most: motion.most,
    onClick: ({ index }) => focus(rows[index]) });
  shown.setProps({ views, layers: [land, dots, ring(at < 0 ? null : [positions[2 * at], positions[2 * at + 1]])] });
}

function bounds(positions) {
  const box = [Infinity, Infinity, -Infinity, -Infinity];
  for (let i = 0; i < positions.length; i += 2) {
    box[0] = Math.min(box[0], positions[i]); box[2] = Math.max(box[2], positions[i]);
    box[1] = Math.min(box[1], positions[i + 1]); box[3] = Math.max(box[3], positions[i + 1]);
  }
  return box;
}

function planeView() {
  const { clientWidth: width, clientHeight: height } = element("plane");
  const [west, south, east, north] = bounds(panels.plane.positions);
  const zoom = Math.log2(0.9 * Math.min(width / (east - west || 1), height / (north - south || 1)));
  return { target: [(west + east) / 2, (south + north) / 2, 0], zoom, minZoom: zoom - 3, maxZoom: zoom + 12 };
}

function mapView() {
  const { clientWidth: width, clientHeight: height } = element("map");
  const [west, south, east, north] = bounds(panels.map.positions);
  const least = 0.01; // degrees: the samples of one scene
  const fitted = new deck.WebMercatorViewport({ width, height }).fitBounds(
    [[west - least, Math.max(-85, south - least)], [east + least, Math.min(85, north + least)]], { padding: 24 });
  return { longitude: fitted.longitude, latitude: fitted.latitude, zoom: fitted.zoom };
}

function tooltip(rows) {
  return ({ index, layer }) => {
    if (index < 0 || !layer || layer.id === "ring") return null;
    const row = rows[index], one = columns[state.colour];
    return { text: one ? `${IDS[row]}\n${one.name}: ${said(one, row)}` : IDS[row] }; // as text, never as markup
  };
}

// A panel is opaque, depths are all the same: what mixes with the page, or is sorted, takes time in every frame.
function makeDeck(name, View, view, initialViewState) {
  const box = element(name), panel = Object.assign(panels[name], { View, view: { id: name, ...view } });
  panel.motion = new Motion(() => show(panel), panel.rows.length);
  panel.deck = new deck.Deck({ parent: box.querySelector(".stage"), views: [new View(panel.view)], initialViewState, layers: [],
    controller: { dragRotate: false, touchRotate: false, doubleClickZoom: true, keyboard: true }, pickingRadius: 4,
    deviceProps: { webgl: { antialias: false, alpha: false, depth: false } }, getTooltip: tooltip(panel.rows),
    onViewStateChange: () => panel.motion.moved() });
  drawBoxes(box, panel);
  return panel.deck;
}

// ---------------------------------------------------------------- selecting

function select(rows, ranked = null, note = "") {
  state.selected.fill(0);
  for (const row of rows) state.selected[row] = 1;
  Object.assign(state, { count: rows.length, ranked, note });
  refresh();
}

function drawBoxes(panel, { deck: made, positions, rows }) {
  const rectangle = panel.querySelector(".rectangle");
  let from = null;
  const at = (event) => {
    const box = panel.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  };
  // Before deck.gl sees them, which would move the view.
  panel.addEventListener("pointerdown", (event) => {
    if (!(state.boxing || event.shiftKey) || event.button) return;
    event.stopPropagation();
    from = at(event);
    panel.setPointerCapture(event.pointerId);
  }, true);
  panel.addEventListener("pointermove", (event) => {
    if (!from) return;
    event.stopPropagation();
    const to = at(event);
    rectangle.hidden = false;
    const [left, top] = [0, 1].map((i) => `${Math.min(from[i], to[i])}px`);
    const [width, height] = [0, 1].map((i) => `${Math.abs(from[i] - to[i])}px`);
    Object.assign(rectangle.style, { left, top, width, height });
  }, true);
  panel.addEventListener("pointerup", (event) => {
    if (!from) return;
    event.stopPropagation();
    const corners = [from, at(event)].map((one) => made.getViewports()[0].unproject(one));
    from = null;
    rectangle.hidden = true;
    select(inside(corners, positions, rows));
  }, true);
  panel.addEventListener("pointercancel", () => { from = null; rectangle.hidden = true; }, true);
}

function inside([a, b], positions, rows) {
  const [[west, east], [south, north]] = [0, 1].map((i) => [Math.min(a[i], b[i]), Math.max(a[i], b[i])]), found = [];
  for (let i = 0; i < positions.length / 2; i++) {
    const x = positions[2 * i], y = positions[2 * i + 1];
    if (x >= west && x <= east && y >= south && y <= north) found.push(rows[i]);
  }
  return found.sort((one, other) => one - other);
}

function search(text) {
  const wanted = text.trim().toLowerCase(), found = [];
  if (wanted) for (let i = 0; i < COUNT; i++) if (IDS[i].toLowerCase().includes(wanted)) found.push(i);
  select(found);
  return found;
}

function cosines(query) {
  const { scales, offsets } = FACTS, found = new Float32Array(COUNT);
  const asked = Float32Array.from(scales, (scale, d) => offsets[d] + scale * codes[query * DIMS + d]);
  for (let i = 0, at = 0; i < COUNT; i++) {
    let dot = 0, squares = 0;
    for (let d = 0; d < DIMS; d++, at++) {
      const value = offsets[d] + scales[d] * codes[at];
      dot += asked[d] * value;
      squares += value * value;
    }
    found[i] = dot / (Math.sqrt(squares) || 1);
  }
  return found.map((one) => one / (found[query] || 1)); // its own is the length of its vector
}

function mostLike(query, k = 20) {
  const found = cosines(query), best = [];
  for (let i = 0; i < COUNT; i++) {
    if (i === query || (best.length === k && found[i] <= found[best[k - 1]])) continue;
    let place = best.length;
    while (place && found[best[place - 1]] < found[i]) place--;
    best.splice(place, 0, i);
    if (best.length > k) best.pop();
  }
  select([query, ...best], new Map([query, ...best].map((row) => [row, found[row]])));
}

function focus(row) {
  state.focus = row;
  refresh();
}

// -------------------------------------------------------------------- words

function said(one, row) {
  const value = one.values[row];
  if (one.kind === "category") return value < 0 ? "unknown" : one.names[value] ?? "others";
  if (value !== value) return "unknown";
  return one.kind === "time" ? new Date(value * 864e5).toISOString().slice(0, 10) : String(Number(value.toPrecision(5)));
}

function made(tag, text = "", name = "") {
  return Object.assign(document.createElement(tag), { textContent: text, className: name });
}

function thumb(row, size) {
  if (!thumbs || thumbs[row] < 0) return null;
  const { across, page } = FACTS.atlas, at = thumbs[row] % page;
  const one = made("span", "", size === 96 ? "thumb large" : "thumb");
  Object.assign(one.style, {
    backgroundImage: `url("data/atlas-${Math.floor(thumbs[row] / page)}.jpg")`, backgroundSize: `${across * size}px auto`,
    backgroundPosition: `-${(at % across) * size}px -${Math.floor(at / across) * size}px`,
  });
  one.setAttribute("role", "img");
  one.setAttribute("aria-label", `Picture of ${IDS[row]}`);
  return one;
}

function legend() {
  const one = columns[state.colour], box = element("legend");
  box.replaceChildren();
  if (!one) return;
  if (one.kind !== "category") {
    const bar = made("span", "", "ramp"), stops = [0, 0.25, 0.5, 0.75, 1].map((at) => `rgb(${ramp(at).map(Math.round)})`);
    bar.style.background = `linear-gradient(to right, ${stops})`;
    box.append(made("small", one.lowest), bar, made("small", one.highest));
    return;
  }
  const counts = new Map();
  for (const value of one.values) counts.set(value, (counts.get(value) ?? 0) + 1);
  const entry = (name, colour, test, count) => {
    const button = made("button"), dot = made("i");
    button.type = "button";
    dot.style.background = colour;
    button.append(dot, made("span", name), made("small", number.format(count)));
    button.addEventListener("click", () => {
      const found = [];
      one.values.forEach((value, row) => { if (test(value)) found.push(row); });
      select(found);
    });
    box.append(button);
  };
  const named = Math.min(one.names.length, MOST_NAMED), unnamed = (value) => value < 0 || value >= named;
  one.names.slice(0, named).forEach((name, i) => entry(
    name, i < FACTS.colours ? `var(--class-${i})` : "var(--faint)", (value) => value === i, counts.get(i) ?? 0));
  const rest = [...counts].filter(([value]) => unnamed(value)).reduce((sum, [, count]) => sum + count, 0);
  if (rest) entry(one.names.length > named || one.cut ? "others or unknown" : "unknown", "var(--faint)", unnamed, rest);
}

function details() {
  const box = element("focus"), row = state.focus;
  box.hidden = row < 0;
  box.replaceChildren();
  if (row < 0) return;
  const text = made("div"), list = made("dl"), like = made("button", "Most like this one");
  for (const one of columns) {
    const pair = made("div");
    pair.append(made("dt", one.name), made("dd", said(one, row)));
    list.append(pair);
  }
  Object.assign(like, { type: "button", id: "like" });
  like.addEventListener("click", () => mostLike(row));
  text.append(made("strong", IDS[row]), list, like);
  box.append(...[thumb(row, 96), text].filter(Boolean));
}

// Those with a picture come first.
function selectedFirst(most) {
  const seen = [], unseen = [];
  for (let i = 0; i < COUNT && seen.length < most; i++) {
    if (!state.selected[i]) continue;
    if (!thumbs || thumbs[i] >= 0) seen.push(i);
    else if (unseen.length < most) unseen.push(i);
  }
  return [...seen, ...unseen].slice(0, most);
}

function strip() {
  const rows = state.ranked ? [...state.ranked.keys()] : selectedFirst(MOST_SHOWN);
  element("strip").replaceChildren(...rows.map((row) => {
    const button = made("button"), one = columns[state.colour];
    Object.assign(button, { type: "button", title: IDS[row] });
    button.append(...[thumb(row, 64), made("span", IDS[row])].filter(Boolean));
    button.append(made("small", state.ranked ? `cosine ${state.ranked.get(row).toFixed(3)}` : one ? said(one, row) : ""));
    button.addEventListener("click", () => focus(row));
    return button;
  }));
}

function refresh() {
  const part = state.count ? ` · ${number.format(state.count)} selected` : "";
  const shown = state.count > MOST_SHOWN ? `, ${MOST_SHOWN} of them shown below` : "";
  element("status").textContent = `${number.format(COUNT)} samples${part}${shown}${state.note}`;
  element("save").disabled = !state.count;
  details();
  strip();
  draw();
}

// ------------------------------------------------------------------- export

async function save() {
  const rows = [];
  for (let i = 0; i < COUNT; i++) if (state.selected[i]) rows.push(i);
  if (!T.service.exports) {
    const quoted = rows.map((row) => `"${IDS[row].replaceAll('"', '""')}"`);
    return download(new Blob([["id", ...quoted, ""].join("\r\n")], { type: "text/csv" }), "selection.csv");
  }
  const headers = { "Content-Type": "application/json" };
  const answer = await fetch("selection", { method: "POST", headers, body: JSON.stringify(rows) });
  if (answer.ok) download(await answer.blob(), "selection.parquet");
  else element("status").textContent = `Not exported: ${await answer.text()}`;
}

function download(blob, name) {
  const link = made("a"), url = URL.createObjectURL(blob);
  Object.assign(link, { href: url, download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 10000);
}

// -------------------------------------------------------------------- begin

T.state = state;
T.decks = { plane: makeDeck("plane", deck.OrthographicView, { flipY: false }, planeView()) };
if (FACTS.located) T.decks.map = makeDeck("map", deck.MapView, {}, mapView());
columns.forEach((one, i) => element("colour").append(new Option(one.name, i)));
element("colour").disabled = !columns.length;
element("colour").addEventListener("change", (event) => { state.colour = Number(event.target.value); legend(); refresh(); });
let waiting;
element("search").addEventListener("input", ({ target }) => {
  clearTimeout(waiting);
  waiting = setTimeout(() => search(target.value), 200);
});
element("search").addEventListener("keydown", (event) => {
  if (event.key !== "Enter") return;
  clearTimeout(waiting);
  const [first] = search(event.target.value);
  if (first !== undefined) focus(first);
});
element("box").addEventListener("click", () => {
  state.boxing = !state.boxing;
  element("box").setAttribute("aria-pressed", state.boxing);
  document.body.classList.toggle("boxing", state.boxing);
});
element("clear").addEventListener("click", () => { element("search").value = ""; state.focus = -1; select([]); });
element("save").textContent = T.service.exports ? "Export (Parquet)" : "Export (CSV of ids)";
element("save").addEventListener("click", save);
dark.addEventListener("change", () => { legend(); refresh(); });
legend();
refresh();
