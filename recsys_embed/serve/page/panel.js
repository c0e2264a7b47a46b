// One item: what is similar to it, and why it is in the list.

import { line } from "./api.js";
import { facts, learn, meet, moves, refill, row, thumbs, titleOf } from "./items.js";
import { make } from "./make.js";
import { address, state, whom } from "./state.js";

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
  if (!id) return;
  follow(was, id);
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
  if (!was || trail.at(-1) === id) trail.pop();
  else if (was !== id) trail.push(was);
}

function head(id) {
  const last = trail.at(-1);
  $("back").hidden = !last;
  $("back").textContent = last ? `‹ ${titleOf(last)}` : "";
  if (last) $("back").href = address({ similar: last, why: "" });
  $("close").href = address({ similar: "", why: "" });
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
  await know(id, told.near);
  const parts = Object.entries(told.parts);
  const widest = Math.max(...parts.map(([, value]) => Math.abs(value)), 1e-9);
  const bars = parts.map(([name, value]) => [make("dt", {}, name), make("dd", {}, bar(value / widest), make("span", { className: "number" }, written(value)))]);
  $("panel-body").replaceChildren(
    make("h3", {}, `Score ${written(told.score)}`),
    make("dl", { className: "parts" }, ...bars.flat()),
    ...section("Of theirs, what speaks for it", told.near.length ? make("ol", {}, ...told.near.map((entry) => row(entry, { number: written(entry.score), acts: false }))) : null),
    ...Object.entries(told.shared ?? {}).flatMap(([name, values]) => section(`Shared ${name}`, make("p", {}, values.join(", ")))),
  );
}

const section = (title, content) => (content ? [make("h3", {}, title), content] : []);

/** A bar from the middle: to the right what speaks for it, to the left what speaks against. share: from -1 to 1. */
function bar(share) {
  const [track, fill] = [make("span", { className: "bar", ariaHidden: "true" }), make("i", { className: share < 0 ? "against" : "for" })];
  fill.style.width = `${50 * Math.abs(share)}%`;
  track.append(fill);
  return track;
}
