// The panel about one item: similar items, or why it is in the list.

import { latestOnly } from "./api.js";
import { facts, itemLinks, leadsTo, loadItems, refill, remember, row, thumbs, titleOf, updateLink } from "./items.js";
import { make } from "./make.js";
import { state, userFields } from "./state.js";

const $ = (id) => document.getElementById(id);
const request = latestOnly();
const trail = []; // the items that led to the current one
let currentItem = "";
let currentView = "";

const format = (value) => (Math.abs(value) >= 100 ? value.toFixed(0) : value.toFixed(2)).replace("-", "−");

/** Show what the address names. Throws what `request` does. */
export async function updatePanel() {
  const id = state.why || state.similar;
  const previous = currentItem;
  $("panel").hidden = !id;
  document.body.classList.toggle("open", Boolean(id));
  renderHead(id);
  const view = id && JSON.stringify([state.similar, state.why, state.why ? userFields() : null]);
  if (view === currentView) return;
  [currentView, currentItem] = [view, id];
  updateTrail(previous, id);
  if (!id) return [...$("list").querySelectorAll("a")].find((link) => leadsTo(link, previous))?.focus();
  renderHead(id);
  $("panel-body").replaceChildren();
  if (id !== previous) $("panel-title").focus();
  try {
    await (state.why ? renderWhy(id) : renderSimilar(id));
  } catch (error) {
    currentView = error.name === "AbortError" ? currentView : ""; // the next action tries again
    throw error;
  }
}

function updateTrail(previous, id) {
  if (!id) trail.length = 0;
  else if (trail.at(-1) === id) trail.pop();
  else if (previous && previous !== id) trail.push(previous);
}

function renderHead(id) {
  const last = trail.at(-1);
  $("back").hidden = !last;
  $("back").textContent = last ? `‹ ${titleOf(last)}` : "";
  $("back").dataset.go = JSON.stringify({ similar: last, why: "" });
  updateLink($("back"));
  $("panel-title").textContent = id ? titleOf(id) : "";
  $("panel-facts").textContent = id ? facts(id, true) : "";
  refill($("panel-acts"), id ? [...thumbs(id, titleOf(id)), ...itemLinks(id, titleOf(id))] : [], $("panel-title"));
}

async function renderSimilar(id) {
  const { items } = await request("similar", { query: { item: id, k: 10 } });
  await loadFacts(id, items);
  const list = make("ol", {}, ...items.map((entry) => row(entry, { number: format(entry.score), acts: false })));
  $("panel-body").replaceChildren(make("h3", {}, "Similar, by cosine"), list);
}

async function loadFacts(id, entries) {
  remember(entries);
  await loadItems([id, ...entries.map((entry) => String(entry.item))]);
  if (id === currentItem) renderHead(id);
}

async function renderWhy(id) {
  const why = await request("explain", { body: { ...userFields(), item: id } });
  await loadFacts(id, why.own);
  const prediction = { stars: `: ${format(why.value)} stars`, chance: `: a probability of ${format(why.value)}` }[why.unit] ?? "";
  const heading = `${state.user ? "The user's items" : "Your picks"} ${why.own[0]?.kind === "contribution" ? "that add most to it" : "nearest to it, by cosine"}`;
  const lines = why.own.map((entry) => row(entry, { number: format(entry.value), acts: false }));
  const rest = Object.entries({ vector: "the user's own vector adds", value: `${why.rest?.items} others add` }).filter(([name]) => why.rest?.[name]);
  const columns = [...new Set(why.shared.map(({ column }) => column))];
  const tokens = (name) => why.shared.filter(({ column }) => column === name).map(({ token, items }) => `${token} (${items})`);
  $("panel-body").replaceChildren(
    why.seen ? make("p", { className: "facts" }, "The user has seen it already.") : "",
    make("h3", {}, `Score ${format(why.score)}${prediction}`),
    scoreBars(why.parts),
    ...section(heading, lines.length && make("ol", {}, ...lines)),
    ...rest.map(([name, text]) => make("p", { className: "facts" }, `${text} ${format(why.rest[name])}`)),
    ...columns.flatMap((column) => section(`Shared ${column}`, make("p", {}, tokens(column).join(", ")))),
  );
}

const section = (title, content) => (content ? [make("h3", {}, title), content] : []);

/** The parts of a score as bars from a common zero: positive ones to the right, negative ones to the left. */
function scoreBars(byName) {
  const entries = Object.entries(byName).filter(([, value]) => value);
  const [low, high] = [Math.min(0, ...entries.map(([, v]) => v)), Math.max(0, ...entries.map(([, v]) => v))];
  const percent = (value) => (100 * (value - low)) / (high - low);
  const lines = entries.flatMap(([name, value]) => {
    const bar = make("i", { className: value < 0 ? "against" : "for" });
    Object.assign(bar.style, { left: `${percent(Math.min(0, value))}%`, right: `${100 - percent(Math.max(0, value))}%` });
    return [make("dt", {}, name.replaceAll("_", " ")), make("dd", {}, make("span", { className: "bar", ariaHidden: "true" }, bar), make("span", { className: "number" }, format(value)))];
  });
  return make("dl", { className: "parts" }, ...lines);
}
