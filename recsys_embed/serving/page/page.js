// The service's page: whom a list is for, the list itself, and a user's history.

import { hasToken, latestOnly, saveToken, send } from "./api.js";
import { count, exampleRules, facts, loadItems, refill, remember, row, stateLink, titleLink, titleOf, updateLink } from "./items.js";
import { make, thumb } from "./make.js";
import { updatePanel } from "./panel.js";
import { combobox } from "./search.js";
import { countPicks, isAnonymous, navigate, pick, pickOf, refreshState, state, userFields } from "./state.js";

const $ = (id) => document.getElementById(id);
const FIELDS = ["where", "per_group", "diversity", "k"];
const [requestList, requestHistory] = [latestOnly(), latestOnly()];
let lastRequest = "";
let historyUser = "";
let shownModel = "";
let timer = 0;

// ---- Errors

/** Show an error where it belongs: under a field, in the form for the token, or above everything. */
function showError(error) {
  if (error.name === "AbortError") return; // a newer request replaced it
  if (error.status === undefined) throw error;
  if (error.status === 401) return askForToken();
  const text = error.message;
  const field = FIELDS.find((name) => text.replace("-", "_").match(/^\w*/)[0] === name);
  if (error.status === 404 && state.user && text.startsWith("user")) showUnknownUser(text);
  else if ([400, 422].includes(error.status) && field) {
    $(`${field}-error`).textContent = text;
    $(field).setAttribute("aria-invalid", "true");
    $("more").open = true;
  } else showPageError(text);
}

function showPageError(text) {
  $("page-error").hidden = !text;
  $("page-error").textContent = text;
}

/** Say that a user is unknown, and turn the example ids in the service's message into links. */
function showUnknownUser(text) {
  const [, before, ids] = text.match(/^(.*e\.g\. )(.*)$/s) ?? [null, text, ""];
  const links = ids.split(", ").filter(Boolean).flatMap((id, n) => [n ? ", " : "", stateLink({ user: id }, {}, id)]);
  $("user-error").replaceChildren(before, ...links);
  $("user").value = state.user;
  $("answer-title").textContent = `There is no user ${state.user}`;
  $("user").setAttribute("aria-invalid", "true");
}

function clearErrors() {
  showPageError("");
  for (const name of [...FIELDS, "user"]) {
    $(`${name}-error`).textContent = "";
    $(name).removeAttribute("aria-invalid");
  }
}

function askForToken() {
  if (!$("login").hidden) return;
  $("login-error").textContent = hasToken() ? "That token was refused." : "";
  $("login").hidden = false;
  $("content").hidden = true;
  $("token").focus();
}

// ---- The list

/** An anonymous user is shown popular items of several kinds. */
const diversity = () => state.diversity || (isAnonymous() ? "0.5" : "0");

function listRequest() {
  const rules = { where: state.where || undefined, per_group: state.per_group || undefined, diversity: Number(diversity()), include_seen: state.seen === "1" || undefined };
  // Whoever looks here is not the user: the list is not one of theirs in an A/B test.
  return { ...userFields(), ...rules, k: state.k === "" ? 10 : Number(state.k), why: true, count: false };
}

async function updateList() {
  const body = listRequest();
  const key = JSON.stringify(body);
  if (key === lastRequest) return;
  lastRequest = key;
  $("answer").setAttribute("aria-busy", "true");
  try {
    const { items, short, model } = await requestList("recommend", { body });
    remember(items.flatMap((entry) => [entry, ...(entry.why ?? [])]));
    await loadItems(items.map((entry) => String(entry.item)));
    if (key !== lastRequest) return;
    showModel(model).catch(showError);
    if (items.length) showExamples(String(items[0].item));
    $("user").value = "";
    showList(items, short);
  } catch (error) {
    if (error.name === "AbortError") return;
    lastRequest = ""; // the next action tries again
    if (error.status !== 404 && $("list").children.length) showHint("This is the list from before.");
    else showList([], "", "Nothing to show");
    showError(error);
  } finally {
    if (key === lastRequest || !lastRequest) $("answer").setAttribute("aria-busy", "false");
  }
}

/** Show which model answers and, once for each, what was measured of it. */
async function showModel(model) {
  $("model").textContent = model;
  if (model === shownModel) return;
  shownModel = model;
  const response = await send("ready");
  const verdict = response.ok ? (await response.json()).verdict : null;
  if (model === shownModel) $("verdict").textContent = verdict ? `On its test: ${verdict}.` : "";
}

function showExamples(id) {
  const { where, perGroup } = exampleRules(id);
  $("where").placeholder = where;
  $("per_group").placeholder = perGroup;
}

function showHint(text) {
  $("hint").hidden = !text;
  $("hint").textContent = text;
}

function showList(items, short, title) {
  const names = [state.user && `user ${state.user}`, countPicks() && "your picks"].filter(Boolean);
  $("answer-title").textContent = title ?? (names.length ? `For ${names.join(" and ")}` : "Popular and varied, to begin with");
  showHint(isAnonymous() ? "Pick a few items that you like, by title or from this list, and it changes at once. Or look at a user of the model." : "");
  refill($("list"), items.map((entry) => row(entry, { rank: entry.rank, number: entry.score.toFixed(2) })), $("search"));
  $("short").textContent = short ?? (items.length ? "" : "Nothing to show.");
  $("status").textContent = `${count(items.length, "recommendation")}. ${short ?? ""}`;
}

// ---- Whom it is for

function renderPicks() {
  const chip = (id) => {
    const liked = pickOf(id) === "likes";
    const remove = make("button", { type: "button", className: "icon", ariaLabel: `Remove ${titleOf(id)}`, data: { act: "remove" } }, "×");
    remove.addEventListener("click", () => pick(id, null));
    const turn = thumb(liked, true, titleOf(id), () => pick(id, liked ? "dislikes" : "likes"));
    Object.assign(turn, { ariaPressed: null, ariaLabel: `${titleOf(id)} is ${liked ? "liked" : "disliked"}; switch`, title: liked ? "Liked: switch to disliked" : "Disliked: switch to liked" });
    turn.dataset.act = "turn";
    return make("li", { className: liked ? "liked" : "disliked" }, turn, titleLink({ item: id, title: titleOf(id) }, { title: titleOf(id) }), remove);
  };
  const user = make("li", {}, make("span", {}, `User ${state.user}`), stateLink({ user: "" }, { className: "icon", ariaLabel: `Remove user ${state.user}` }, "×"));
  refill($("picks"), [...(state.user ? [user] : []), ...[...state.likes, ...state.dislikes].map(chip)], $("search"));
}

async function updateHistory() {
  if (state.user === historyUser) return;
  historyUser = state.user;
  $("history").hidden = true;
  if (!state.user) return;
  try {
    const { items, total } = await requestHistory("history", { query: { user: state.user } });
    remember(items);
    await loadItems(items.map((entry) => String(entry.item)));
    if (state.user !== historyUser) return;
    $("history-title").textContent = `Rated by user ${state.user}`;
    $("history-list").replaceChildren(...items.map((entry) => row(entry, { number: entry.rating === null ? null : `★ ${entry.rating}`, acts: false })));
    $("history-rest").textContent = total > items.length ? `and ${(total - items.length).toLocaleString("en")} more` : "";
    $("history").hidden = false;
  } catch (error) {
    historyUser = error.name === "AbortError" ? historyUser : null;
    if (error.status !== 404) throw error; // the list shows that error already
  }
}

// ---- The fields

function renderFields() {
  for (const name of FIELDS) if (document.activeElement !== $(name)) $(name).value = state[name] || { diversity: diversity(), k: "10" }[name] || "";
  $("seen").checked = state.seen === "1";
  $("diversity-value").textContent = diversity();
  const n = [...FIELDS, "seen"].filter((name) => state[name]).length;
  $("set").textContent = n ? `· ${n} set` : "";
}

/** Show what the address says. */
function render() {
  refreshState();
  clearErrors();
  renderFields();
  renderPicks();
  document.querySelectorAll("a[data-go]").forEach(updateLink);
  clearTimeout(timer);
  timer = setTimeout(() => updateList().catch(showError), 40);
  updateHistory().catch(showError);
  updatePanel().catch(showError);
  loadItems([...state.likes, ...state.dislikes].filter((id) => titleOf(id) === id)).then(renderPicks).catch(showError);
}

/** Open the map, which the service draws first if it has not yet. */
async function openMap(event, waited = false) {
  if (event.ctrlKey || event.metaKey || event.shiftKey) return;
  event.preventDefault();
  const abort = new AbortController();
  try {
    const response = await send("map", { signal: abort.signal });
    const { status } = response;
    if (status === 401) return askForToken();
    if (status === 200 && !waited && hasToken()) return saveMap(await response.blob());
    abort.abort();
    if (status === 200 && !waited) return location.assign("map");
    $("map-state").textContent = { 200: "is drawn: open it", 202: "is being drawn…" }[status] ?? "cannot be drawn here";
    if (status === 202) setTimeout(() => openMap(event, true), 1000 * (Number(response.headers.get("Retry-After")) || 2));
  } catch (error) {
    showError(error);
  }
}

/** Save the map as a file: a browser that follows a link sends no token. */
function saveMap(blob) {
  const href = URL.createObjectURL(blob);
  make("a", { href, download: "map.html" }).click();
  setTimeout(() => URL.revokeObjectURL(href), 10_000);
  $("map-state").textContent = "saved as map.html";
}

function likeItem({ item }) {
  if (pickOf(String(item)) !== "likes") pick(String(item), "likes");
}

function start() {
  combobox($("search"), $("found"), { note: (item) => facts(String(item.item), true), onChoose: likeItem, onError: showError });
  $("known").addEventListener("submit", (event) => {
    event.preventDefault();
    navigate({ user: $("user").value.trim(), likes: [], dislikes: [], why: "" });
  });
  for (const name of FIELDS) {
    let timeout = 0;
    const setAfter = (delay) => () => {
      clearTimeout(timeout);
      timeout = setTimeout(() => $(name).value.trim() !== state[name] && navigate({ [name]: $(name).value.trim() }, true), delay);
    };
    $(name).addEventListener("input", setAfter(name === "diversity" ? 80 : 400));
    $(name).addEventListener("change", setAfter(0)); // Enter
  }
  $("seen").addEventListener("change", () => navigate({ seen: $("seen").checked ? "1" : "" }, true));
  $("login").addEventListener("submit", (event) => {
    event.preventDefault();
    saveToken($("token").value);
    $("token").value = "";
    $("login").hidden = true;
    $("content").hidden = false;
    render();
  });
  $("map").addEventListener("click", openMap);
  addEventListener("hashchange", render);
  render();
}

start();
