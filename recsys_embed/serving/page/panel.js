// One item: what is similar to it, and why it is in the list.

import { line } from "./api.js";
import { facts, isTo, learn, meet, moves, point, refill, row, thumbs, titleOf } from "./items.js";
import { make } from "./make.js";
import { state, whom } from "./state.js";

const $ = (id) => document.getElementById(id);
const asking = line();
const trail = []; // items that led to the one that is shown
let shown = "";
let item = "";

const written = (value) => (Math.abs(value) >= 100 ? value.toFixed(0) : value.toFixed(2)).replace("-", "−");

/** Show what the address says. Throws what `ask` does. */
export async function panel() {
  const id = state.why || state.similar;
  const was = item;
  $("panel").hidden = !id;
  document.body.classList.toggle("open", Boolean(id));
  head(id);
  const now = id && JSON.stringify([state.similar, state.why, state.why ? whom() : null]);
  if (now === shown) return;
  [shown, item] = [now, id];
  follow(was, id);
  if (!id) return [...$("list").querySelectorAll("a")].find((one) => isTo(one, was))?.focus();
  head(id);
  $("panel-body").replaceChildren();
  if (id !== was) $("panel-title").focus();
  try {
    await (state.why ? why(id) : similar(id));
  } catch (error) {
    shown = error.name === "AbortError" ? shown : ""; // asked again with the next thing done
    throw error;
  }
}

function follow(was, id) {
  if (!id) trail.length = 0;
  else if (trail.at(-1) === id) trail.pop();
  else if (was && was !== id) trail.push(was);
}

function head(id) {
  const last = trail.at(-1);
  $("back").hidden = !last;
  $("back").textContent = last ? `‹ ${titleOf(last)}` : "";
  $("back").dataset.go = JSON.stringify({ similar: last, why: "" });
  point($("back"));
  $("panel-title").textContent = id ? titleOf(id) : "";
  $("panel-facts").textContent = id ? facts(id, true) : "";
  refill($("panel-acts"), id ? [...thumbs(id, titleOf(id)), ...moves(id, titleOf(id))] : [], $("panel-title"));
}

async function similar(id) {
  const { items } = await asking("similar", { query: { item: id, k: 10 } });
  await know(id, items);
  const list = make("ol", {}, ...items.map((entry) => row(entry, { number: written(entry.score), acts: false })));
  $("panel-body").replaceChildren(make("h3", {}, "Similar, by cosine"), list);
}

async function know(id, entries) {
  meet(entries);
  await learn([id, ...entries.map((entry) => String(entry.item))]);
  if (id === item) head(id);
}

async function why(id) {
  const told = await asking("explain", { body: { ...whom(), item: id } });
  await know(id, told.own);
  const unit = { stars: `: ${written(told.value)} stars`, chance: `: a chance of ${written(told.value)}` }[told.unit] ?? "";
  const own = `Of ${state.user ? "theirs" : "your picks"}, what ${told.own[0]?.kind === "contribution" ? "adds most to it" : "is nearest to it, by cosine"}`;
  const lines = told.own.map((entry) => row(entry, { number: written(entry.value), acts: false }));
  const rest = Object.entries({ vector: "a vector of their own adds", value: `${told.rest?.items} others add` }).filter(([name]) => told.rest?.[name]);
  const columns = [...new Set(told.shared.map(({ column }) => column))];
  const tokens = (column) => told.shared.filter((one) => one.column === column).map(({ token, items }) => `${token} (${items})`);
  $("panel-body").replaceChildren(
    told.seen ? make("p", { className: "facts" }, "It is known to them already.") : "",
    make("h3", {}, `Score ${written(told.score)}${unit}`),
    parts(told.parts),
    ...section(own, lines.length && make("ol", {}, ...lines)),
    ...rest.map(([name, said]) => make("p", { className: "facts" }, `${said} ${written(told.rest[name])}`)),
    ...columns.flatMap((column) => section(`Shared ${column}`, make("p", {}, tokens(column).join(", ")))),
  );
}

const section = (title, content) => (content ? [make("h3", {}, title), content] : []);

/** The parts of a score as bars from where nothing is: to the right what speaks for it, to the left what speaks against. */
function parts(told) {
  const some = Object.entries(told).filter(([, value]) => value);
  const [least, most] = [Math.min(0, ...some.map(([, v]) => v)), Math.max(0, ...some.map(([, v]) => v))];
  const at = (value) => (100 * (value - least)) / (most - least);
  const lines = some.flatMap(([name, value]) => {
    const bar = make("i", { className: value < 0 ? "against" : "for" });
    Object.assign(bar.style, { left: `${at(Math.min(0, value))}%`, right: `${100 - at(Math.max(0, value))}%` });
    return [make("dt", {}, name.replaceAll("_", " ")), make("dd", {}, make("span", { className: "bar", ariaHidden: "true" }, bar), make("span", { className: "number" }, written(value)))];
  });
  return make("dl", { className: "parts" }, ...lines);
}
