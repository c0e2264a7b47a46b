// The page of the service: whom a list is for, the list itself, and what a user has rated.

import { ask, hasToken, keepToken, line, send } from "./api.js";
import { count, facts, learn, link, meet, point, refill, row, titleOf, to } from "./items.js";
import { make, thumb } from "./make.js";
import { panel } from "./panel.js";
import { combobox } from "./search.js";
import { go, kindOf, nobody, pick, picked, refreshed, state, whom } from "./state.js";

const $ = (id) => document.getElementById(id);
const FIELDS = ["where", "per_group", "diversity", "k"];
const [listing, past] = [line(), line()];
let asked = "";
let shownUser = "";
let timer = 0;

// ---- What goes wrong

/** Say what went wrong, where it belongs: under a field, in the form for a token, or above everything. */
function failed(error) {
  if (error.name === "AbortError") return; // a newer question took its place
  if (error.status === undefined) throw error;
  if (error.status === 401) return gate();
  const text = error.message;
  const named = FIELDS.find((name) => text.replace("-", "_").match(/^\w*/)[0] === name);
  if (error.status === 404 && state.user && text.startsWith("user")) unknown(text);
  else if ([400, 422].includes(error.status) && named) {
    $(`${named}-error`).textContent = text;
    $(named).setAttribute("aria-invalid", "true");
    $("more").open = true;
  } else trouble(text);
}

function trouble(text) {
  $("trouble").hidden = !text;
  $("trouble").textContent = text;
}

/** A user whom the model does not know: the ids that the service names are there to click. */
function unknown(text) {
  const [, before, ids] = text.match(/^(.*e\.g\. )(.*)$/s) ?? [null, text, ""];
  const links = ids.split(", ").filter(Boolean).flatMap((id, n) => [n ? ", " : "", to({ user: id }, {}, id)]);
  $("user-error").replaceChildren(before, ...links);
  $("user").value = state.user;
  $("answer-title").textContent = `There is no user ${state.user}`;
  $("user").setAttribute("aria-invalid", "true");
}

function clean() {
  trouble("");
  for (const name of [...FIELDS, "user"]) {
    $(`${name}-error`).textContent = "";
    $(name).removeAttribute("aria-invalid");
  }
}

function gate() {
  if (!$("gate").hidden) return;
  $("gate-error").textContent = hasToken() ? "That token was refused." : "";
  $("gate").hidden = false;
  $("room").hidden = true;
  $("token").focus();
}

// ---- The list

/** Nobody in particular is shown the popular ones of several kinds. */
const variety = () => state.diversity || (nobody() ? "0.5" : "0");

function question() {
  const rules = { where: state.where || undefined, per_group: state.per_group || undefined, diversity: Number(variety()), include_seen: state.seen === "1" || undefined };
  return { ...whom(), ...rules, k: state.k === "" ? 10 : Number(state.k), why: true };
}

async function list() {
  const body = question();
  const key = JSON.stringify(body);
  if (key === asked) return;
  asked = key;
  $("answer").setAttribute("aria-busy", "true");
  try {
    const { items, short, model } = await listing("recommend", { body });
    meet(items.flatMap((entry) => [entry, ...(entry.why ?? [])]));
    await learn(items.map((entry) => String(entry.item)));
    if (key !== asked) return;
    $("model").textContent = model;
    $("user").value = "";
    show(items, short);
  } catch (error) {
    if (error.name === "AbortError") return;
    asked = ""; // asked again with the next thing done
    if (error.status !== 404 && $("list").children.length) hint("This is the list from before.");
    else show([], "", "Nothing to show");
    failed(error);
  } finally {
    if (key === asked || !asked) $("answer").setAttribute("aria-busy", "false");
  }
}

function hint(text) {
  $("hint").hidden = !text;
  $("hint").textContent = text;
}

function show(items, short, title) {
  const names = [state.user && `user ${state.user}`, picked() && "your picks"].filter(Boolean);
  $("answer-title").textContent = title ?? (names.length ? `For ${names.join(" and ")}` : "Popular and varied, to begin with");
  hint(nobody() ? "Pick a few items that you like, by title or from this list, and it changes at once. Or look at a user of the model." : "");
  refill($("list"), items.map((entry) => row(entry, { rank: entry.rank, number: entry.score.toFixed(2) })), $("search"));
  $("short").textContent = short ?? (items.length ? "" : "Nothing to show.");
  $("said").textContent = `${count(items.length, "recommendation")}. ${short ?? ""}`;
}

// ---- Whom it is for

function picks() {
  const chip = (id) => {
    const liked = kindOf(id) === "likes";
    const remove = make("button", { type: "button", className: "icon", ariaLabel: `Remove ${titleOf(id)}`, data: { act: "remove" } }, "×");
    remove.addEventListener("click", () => pick(id, null));
    const turn = thumb(liked, true, titleOf(id), () => pick(id, liked ? "dislikes" : "likes"));
    Object.assign(turn, { ariaPressed: null, ariaLabel: `${titleOf(id)} is ${liked ? "liked" : "disliked"}; turn`, title: liked ? "Liked: turn to disliked" : "Disliked: turn to liked" });
    turn.dataset.act = "turn";
    return make("li", { className: liked ? "liked" : "disliked" }, turn, link({ item: id, title: titleOf(id) }, { title: titleOf(id) }), remove);
  };
  const user = make("li", {}, make("span", {}, `User ${state.user}`), to({ user: "" }, { className: "icon", ariaLabel: `Without user ${state.user}` }, "×"));
  refill($("picks"), [...(state.user ? [user] : []), ...[...state.likes, ...state.dislikes].map(chip)], $("search"));
}

async function rated() {
  if (state.user === shownUser) return;
  shownUser = state.user;
  $("history").hidden = true;
  if (!state.user) return;
  try {
    const { items, total } = await past("history", { query: { user: state.user } });
    meet(items);
    await learn(items.map((entry) => String(entry.item)));
    if (state.user !== shownUser) return;
    $("history-title").textContent = `Rated by user ${state.user}`;
    $("history-list").replaceChildren(...items.map((entry) => row(entry, { number: entry.rating === null ? null : `★ ${entry.rating}`, acts: false })));
    $("history-rest").textContent = total > items.length ? `and ${(total - items.length).toLocaleString("en")} more` : "";
    $("history").hidden = false;
  } catch (error) {
    shownUser = error.name === "AbortError" ? shownUser : null;
    if (error.status !== 404) throw error; // the list says it already
  }
}

// ---- The fields

function fields() {
  for (const name of FIELDS) if (document.activeElement !== $(name)) $(name).value = state[name] || { diversity: variety(), k: "10" }[name] || "";
  $("seen").checked = state.seen === "1";
  $("diversity-said").textContent = variety();
  const set = [...FIELDS, "seen"].filter((name) => state[name]).length;
  $("set").textContent = set ? `· ${set} set` : "";
}

/** Everything follows the address. */
function arrive() {
  refreshed();
  clean();
  fields();
  picks();
  document.querySelectorAll("a[data-go]").forEach(point);
  clearTimeout(timer);
  timer = setTimeout(() => list().catch(failed), 40);
  rated().catch(failed);
  panel().catch(failed);
  learn([...state.likes, ...state.dislikes].filter((id) => titleOf(id) === id)).then(picks).catch(failed);
}

/** Draw the map, if need be, and go there. */
async function map(event, waited = false) {
  if (event.ctrlKey || event.metaKey || event.shiftKey) return;
  event.preventDefault();
  const stop = new AbortController();
  try {
    const answer = await send("map", { signal: stop.signal });
    const { status } = answer;
    if (status === 401) return gate();
    if (status === 200 && !waited && hasToken()) return save(await answer.blob());
    stop.abort();
    if (status === 200 && !waited) return location.assign("map");
    $("map-state").textContent = { 200: "is drawn: open it", 202: "is being drawn…" }[status] ?? "cannot be drawn here";
    if (status === 202) setTimeout(() => map(event, true), 1000 * (Number(answer.headers.get("Retry-After")) || 2));
  } catch (error) {
    failed(error);
  }
}

/** A browser sends no token where it goes by itself, so the map comes as a file. */
function save(blob) {
  const href = URL.createObjectURL(blob);
  make("a", { href, download: "map.html" }).click();
  setTimeout(() => URL.revokeObjectURL(href), 10_000);
  $("map-state").textContent = "saved as map.html";
}

function chosen({ item }) {
  if (kindOf(String(item)) !== "likes") pick(String(item), "likes");
}

function start() {
  combobox($("search"), $("found"), { note: (item) => facts(String(item.item), true), chosen, failed });
  $("known").addEventListener("submit", (event) => {
    event.preventDefault();
    go({ user: $("user").value.trim(), likes: [], dislikes: [], why: "" });
  });
  for (const name of FIELDS) {
    let wait = 0;
    const set = (after) => () => {
      clearTimeout(wait);
      wait = setTimeout(() => $(name).value.trim() !== state[name] && go({ [name]: $(name).value.trim() }, true), after);
    };
    $(name).addEventListener("input", set(name === "diversity" ? 80 : 400));
    $(name).addEventListener("change", set(0)); // Enter
  }
  $("seen").addEventListener("change", () => go({ seen: $("seen").checked ? "1" : "" }, true));
  $("gate").addEventListener("submit", (event) => {
    event.preventDefault();
    keepToken($("token").value);
    $("token").value = "";
    $("gate").hidden = true;
    $("room").hidden = false;
    arrive();
  });
  $("map").addEventListener("click", map);
  addEventListener("hashchange", arrive);
  arrive();
}

start();
