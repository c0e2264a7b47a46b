// The page around the plot. Titles are data: they enter the page as text only.

const data = JSON.parse(document.getElementById("data").textContent);
const $ = (id) => document.getElementById(id);
const NEIGHBOURS = 10;

const points = Float32Array.from(new Uint16Array(bytesOf(data.points).buffer), (v) => v / 32767.5 - 1);
const items = data.titles.length; // rows from here on are users
const count = points.length / 2;
const ratings = data.columns[0].values;
const maxRatings = ratings.reduce((high, r) => Math.max(high, r || 0), 1);
const weight = Float32Array.from({ length: count }, (_, row) => (row < items ? Math.sqrt((ratings[row] || 0) / maxRatings) : 0.2));
const order = Uint32Array.from({ length: count }, (_, row) => row).sort((a, b) => (a < items) - (b < items) || weight[a] - weight[b] || b - a);
const vectors = data.vectors && new Vectors({ n: items, ...data.vectors });
const plot = new Plot($("points"), $("overlay"), points, weight, order);
const titleOf = (row) => (row < items ? data.titles[row] : `user ${data.users.ids[row - items]}`);
plot.titles = titleOf;
const normalizeText = (text) => text.normalize("NFKD").replace(/\p{M}/gu, "").toLowerCase();
const idOf = (row) => (row < items ? data.ids[row] : data.users.ids[row - items]);
const searchable = Array.from({ length: count }, (_, row) => normalizeText(titleOf(row)));
const state = { column: data.columns.find((c) => c.name === data.colour), tags: new Set(), picks: [] };

function element(name, text, more = {}) {
  const created = document.createElement(name);
  if (text !== undefined) created.textContent = text;
  return Object.assign(created, more);
}

const announce = (text) => ($("status").textContent = text);

// ---- Colours and the legend

function theme(dark) {
  document.documentElement.dataset.theme = dark ? "dark" : "light";
  const style = getComputedStyle(document.documentElement);
  plot.colour = Object.fromEntries(["ground", "text", "soft", "pick", "dim", "line"].map((n) => [n, style.getPropertyValue(`--${n}`).trim()]));
  plot.redraw();
}

function colourBy(column) {
  state.column = column;
  state.tags.clear();
  const palette = data.palette.tags.map(channels).map(packed);
  const stops = data.palette.scale.map(channels);
  const other = packed(channels(data.palette.other)); // users too
  const rarest = (row) => palette[Math.max(-1, ...column.members[row].filter((m) => m < palette.length))] ?? other;
  const between = (share) => {
    if (share === null) return other;
    const place = (share / 1000) * (stops.length - 1);
    const below = Math.min(stops.length - 2, Math.floor(place));
    return packed(stops[below].map((c, i) => Math.round(c + (stops[below + 1][i] - c) * (place - below))));
  };
  const colourOf = column.kind === "tags" ? rarest : (row) => between(column.shares[row]);
  plot.colours = Uint32Array.from({ length: count }, (_, row) => (row < items ? colourOf(row) : other));
  legend();
  highlight();
}

function legend() {
  const box = $("legend");
  box.replaceChildren();
  const { column } = state;
  if (column.kind === "number") {
    const scale = element("div", undefined, { className: "scale" });
    scale.style.background = `linear-gradient(to right, ${data.palette.scale.join(", ")})`;
    const ends = element("div", undefined, { className: "ends" });
    ends.append(element("span", formatNumber(column.ends[0])), element("span", "by rank"), element("span", formatNumber(column.ends[1])));
    box.append(scale, ends);
    return;
  }
  const sizes = new Array(column.names.length).fill(0);
  for (const tags of column.members) for (const tag of tags) sizes[tag]++;
  column.names.slice(0, 30).forEach((name, at) => {
    const button = element("button", undefined, { type: "button" });
    const mark = element("i");
    mark.style.background = data.palette.tags[at] || data.palette.other;
    button.append(mark, element("span", name), element("span", sizes[at].toLocaleString("en")));
    button.setAttribute("aria-pressed", "false");
    button.addEventListener("click", () => {
      if (!state.tags.delete(at)) state.tags.add(at);
      button.setAttribute("aria-pressed", String(state.tags.has(at)));
      highlight();
      announce(state.tags.size ? `${plot.lit.slice(0, items).reduce((a, b) => a + b, 0)} items shown` : "all items shown");
    });
    box.append(button);
  });
}

/** Highlight the items with any of the chosen tags; all items if none is chosen. */
function highlight() {
  const { column, tags } = state;
  for (let row = 0; row < count; row++)
    plot.lit[row] = !tags.size || (row < items && column.members[row].some((m) => tags.has(m))) ? 1 : 0;
  plot.redraw();
}

// ---- Facts

function formatNumber(value) {
  if (value === null) return "";
  if (Math.abs(value) >= 1e15) return String(value);
  return Number.isInteger(value) && Math.abs(value) < 10000 ? String(value) : value.toLocaleString("en", { maximumFractionDigits: 3 });
}

function factsOf(row) {
  if (row >= items) return [["ratings", formatNumber(data.users.counts[row - items])]];
  return data.columns
    .map((c) => [c.name, c.kind === "tags" ? c.members[row].map((m) => c.names[m]).join(", ") : c.kind === "number" ? formatNumber(c.values[row]) : c.texts[row]])
    .concat(data.moves ? [["neighbours kept", `${data.moves.kept[row] ?? "new here"}${data.moves.kept[row] === null ? "" : ` of ${data.moves.of}`}`]] : [])
    .filter(([, value]) => value !== "");
}

function showTooltip(row, x, y) {
  const box = $("tip");
  plot.tooltip = row;
  box.hidden = row < 0;
  $("overlay").classList.toggle("over", row >= 0);
  if (row >= 0) {
    box.replaceChildren(element("b", titleOf(row)), element("span", factsOf(row).slice(0, 3).map(([name, value]) => `${name} ${value}`).join(" · ")));
    const { width, height } = box.getBoundingClientRect();
    box.style.left = `${Math.max(4, Math.min(x + 14, innerWidth - width - 6))}px`;
    box.style.top = `${y + 18 + height > innerHeight ? y - height - 10 : y + 18}px`;
  }
  plot.redraw();
}

// ---- One item, and its nearest ones

function entry(row, note) {
  const line = element("li");
  const button = element("button", titleOf(row), { type: "button" });
  button.addEventListener("click", () => {
    select(row, true);
    $("item-title").focus();
  });
  for (const [event, hovered] of [["mouseenter", row], ["mouseleave", -1], ["focus", row], ["blur", -1]])
    button.addEventListener(event, () => {
      plot.tooltip = hovered;
      plot.redraw();
    });
  line.append(button);
  if (note !== undefined) line.append(element("span", note));
  return line;
}

function select(row, move) {
  plot.selected = row;
  plot.lines = [];
  $("item").hidden = row < 0;
  if (row >= 0) {
    $("item-title").textContent = titleOf(row);
    $("item-facts").replaceChildren(...factsOf(row).flatMap(([name, value]) => [element("dt", name), element("dd", value)]));
    const nearest = row < items ? (vectors ? vectors.nearest(row, NEIGHBOURS) : []) : data.users.near[row - items].map((r) => ({ row: r }));
    plot.lines = nearest.map((n) => ({ from: row, to: n.row }));
    $("nearest-title").textContent = row < items ? `Nearest of ${items.toLocaleString("en")}, by cosine in ${vectors.dim} dimensions` : "Items nearest to the user, by cosine";
    $("nearest").replaceChildren(...nearest.map((n) => entry(n.row, n.score === undefined ? undefined : n.score.toFixed(2))));
    announce(`${titleOf(row)}. Nearest: ${nearest.slice(0, 3).map((n) => titleOf(n.row)).join(", ")}`);
    if (move) plot.show([row, ...nearest.slice(0, 6).map((n) => n.row)]);
    fold(false);
  }
  updateLikeButton();
  addChangeLines();
  plot.redraw();
}

// ---- Picks: items that the user likes, and recommendations from them

function updateLikeButton() {
  const row = plot.selected;
  const button = $("like");
  button.hidden = !vectors || !vectors.fold || row < 0 || row >= items;
  const picked = state.picks.includes(row);
  button.textContent = picked ? "♥ picked" : "♡ I like this";
  button.setAttribute("aria-pressed", String(picked));
}

function pick(row) {
  state.picks = state.picks.includes(row) ? state.picks.filter((r) => r !== row) : [...state.picks, row];
  plot.marked = state.picks;
  $("picks").hidden = !state.picks.length;
  $("picked").replaceChildren(
    ...state.picks.map((r) => {
      const line = entry(r);
      const remove = element("button", "×", { type: "button", ariaLabel: `Remove ${titleOf(r)}` });
      remove.addEventListener("click", () => {
        pick(r);
        ($("picked").querySelector("button") || $("overlay")).focus();
      });
      line.append(remove);
      return line;
    }),
  );
  const more = Math.min(3, items) - state.picks.length;
  $("picks-hint").textContent = more > 0 ? `Pick ${more} more for good recommendations.` : "";
  const found = state.picks.length ? vectors.recommend(state.picks, NEIGHBOURS) : [];
  $("for-you-name").hidden = !found.length;
  $("for-you").replaceChildren(...found.map((f) => entry(f.row)));
  plot.hinted = found.map((f) => f.row);
  updateLikeButton();
  updateInset();
  plot.redraw();
}

// ---- Search

/** List the rows whose titles contain all words: an id or a whole title first, then titles that start so, then the most rated. */
function search(text) {
  const whole = normalizeText(text.trim());
  const words = whole.split(/\s+/).filter(Boolean);
  const found = [[], [], []];
  if (words.length)
    for (let at = order.length - 1; at >= 0; at--) {
      const row = order[at];
      const title = searchable[row];
      const exact = normalizeText(idOf(row)) === whole || title === whole || title.replace(/ \(\d{4}\)$/, "") === whole;
      if (exact) found[0].push(row);
      else if (words.every((w) => title.includes(w))) found[title.startsWith(whole) ? 1 : 2].push(row);
    }
  const rows = found.flat();
  $("results").hidden = !words.length;
  $("results").replaceChildren(...(rows.length ? rows.slice(0, 30).map((row) => entry(row)) : [element("li", words.length ? "nothing found" : "")]));
  if (words.length) announce(`${rows.length} found`);
}

// ---- Changes from another model

/** Add arrows from old positions: of the selected item, or of those whose neighbours changed most. */
function addChangeLines() {
  if (!data.moves || !$("moves").checked) return;
  const from = (row) => [data.moves.from[2 * row] / 1000, data.moves.from[2 * row + 1] / 1000];
  const rows = plot.selected >= 0 ? [plot.selected] : data.moves.most;
  plot.lines = [...plot.lines, ...rows.filter((row) => row < items && data.moves.from[2 * row] !== null).map((row) => ({ from: from(row), to: row, arrow: true }))];
}

// ---- Pointer and keys

const pointers = new Map();
let travelled = 0;

function pointerDown(event) {
  plot.keyed = false;
  $("overlay").setPointerCapture(event.pointerId);
  pointers.set(event.pointerId, [event.clientX, event.clientY]);
  if (pointers.size === 1) travelled = 0;
  $("overlay").classList.add("grabbing");
}

function pointerMove(event) {
  const before = pointers.get(event.pointerId);
  if (!before) return event.pointerType === "mouse" && showTooltip(plot.pick(event.clientX, event.clientY), event.clientX, event.clientY);
  const now = [event.clientX, event.clientY];
  if (pointers.size === 1) plot.pan(now[0] - before[0], now[1] - before[1]);
  else if (pointers.size === 2) {
    const other = [...pointers].find(([id]) => id !== event.pointerId)[1];
    const apart = (a) => Math.hypot(a[0] - other[0], a[1] - other[1]) || 1;
    plot.zoomAt((now[0] + other[0]) / 2, (now[1] + other[1]) / 2, apart(now) / apart(before));
    plot.pan((now[0] - before[0]) / 2, (now[1] - before[1]) / 2);
  }
  travelled += Math.hypot(now[0] - before[0], now[1] - before[1]);
  if (travelled > 4) showTooltip(-1);
  pointers.set(event.pointerId, now);
}

function pointerUp(event) {
  const alone = pointers.size === 1 && pointers.delete(event.pointerId);
  pointers.delete(event.pointerId);
  if (!pointers.size) $("overlay").classList.remove("grabbing");
  if (alone && travelled <= 4 && event.type === "pointerup") {
    const row = plot.pick(event.clientX, event.clientY, event.pointerType === "mouse" ? 6 : 14);
    select(row);
    if (row < 0) showTooltip(-1);
  }
}

const zoomBy = (factor) => plot.zoomAt(...plot.middle, factor);

function key(event) {
  const step = 60;
  const actions = {
    ArrowLeft: () => plot.pan(step, 0), ArrowRight: () => plot.pan(-step, 0), ArrowUp: () => plot.pan(0, step), ArrowDown: () => plot.pan(0, -step),
    "+": () => zoomBy(1.4), "=": () => zoomBy(1.4), "-": () => zoomBy(1 / 1.4), "0": () => plot.whole(),
    Enter: () => select(plot.pick(...plot.middle, 400)),
  };
  const action = actions[event.key];
  if (!action || event.ctrlKey || event.metaKey || event.altKey) return;
  event.preventDefault();
  plot.keyed = true;
  action();
  plot.redraw();
}

/** On a phone: show only the search, or the whole panel. */
function fold(folded) {
  $("panel").classList.toggle("folded", folded);
  $("fold").setAttribute("aria-expanded", String(!folded));
  updateInset();
  plot.redraw();
}

/** Tell the plot how much of the canvas the panels cover. */
function updateInset() {
  const card = $("panel").getBoundingClientRect();
  const right = $("picks").hidden || innerWidth < 1000 ? 60 : innerWidth - $("picks").getBoundingClientRect().left;
  plot.inset = innerWidth <= 700 ? { bottom: Math.min(card.height, innerHeight * 0.46), right: 60 } : { left: card.right, right };
}

function start() {
  $("title").textContent = data.title;
  $("facts").textContent = data.facts;
  $("overlay").setAttribute("aria-label", `Map of ${items.toLocaleString("en")} items. ${data.facts}`);
  for (const column of data.columns.filter((c) => c.kind !== "text")) $("colour").append(element("option", column.name, { value: column.name }));
  $("colour").value = data.colour;
  $("colour").addEventListener("change", () => colourBy(data.columns.find((c) => c.name === $("colour").value)));
  $("moves-label").hidden = !data.moves;
  $("moves").addEventListener("change", () => select(plot.selected));
  $("search").addEventListener("input", () => search($("search").value));
  $("search").addEventListener("keydown", (event) => {
    if (event.key === "Enter") $("results").querySelector("button")?.click();
    if (event.key === "ArrowDown") $("results").querySelector("button")?.focus();
  });
  $("close").addEventListener("click", () => {
    select(-1);
    $("overlay").focus();
  });
  $("like").addEventListener("click", () => pick(plot.selected));
  $("clear").addEventListener("click", () => {
    for (const row of state.picks) pick(row);
    $("overlay").focus();
  });
  $("fold").addEventListener("click", () => fold(!$("panel").classList.contains("folded")));
  $("in").addEventListener("click", () => zoomBy(1.5));
  $("out").addEventListener("click", () => zoomBy(1 / 1.5));
  $("all").addEventListener("click", () => plot.whole());
  const dark = matchMedia("(prefers-color-scheme: dark)");
  $("theme").addEventListener("click", () => theme(document.documentElement.dataset.theme !== "dark"));
  dark.addEventListener("change", () => theme(dark.matches));
  const canvas = $("overlay");
  canvas.addEventListener("pointerdown", pointerDown);
  canvas.addEventListener("pointermove", pointerMove);
  canvas.addEventListener("pointerup", pointerUp);
  canvas.addEventListener("pointercancel", pointerUp);
  canvas.addEventListener("pointerleave", () => showTooltip(-1));
  canvas.addEventListener("keydown", key);
  canvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    plot.zoomAt(event.clientX, event.clientY, Math.exp(-event.deltaY * (event.deltaMode ? 0.05 : 0.0016)));
  }, { passive: false });
  addEventListener("keydown", (event) => {
    if (event.key === "/" && document.activeElement !== $("search") && !event.ctrlKey && !event.metaKey && !event.altKey) {
      event.preventDefault();
      $("search").focus();
    }
    if (event.key === "Escape") {
      $("search").value = "";
      search("");
      select(-1);
      $("overlay").focus();
    }
  });
  theme(dark.matches);
  colourBy(state.column);
  updateInset();
  new ResizeObserver(() => {
    updateInset();
    plot.resize();
  }).observe(canvas);
  plot.resize();
}

start();
