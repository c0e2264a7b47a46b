// Items: their facts from the item table, and how they are shown in lists.

import { request } from "./api.js";
import { make, thumb } from "./make.js";
import { hrefFor, isAnonymous, pick, pickOf } from "./state.js";

const NO_FACTS = new Set(["item", "title", "score", "rank", "why", "rating", "ratings", "known_words", "item_id"]);
const MAX_QUERY_LENGTH = 8000; // an address must stay well below 64 KB
const MAX_AGE_MS = 10_000; // values such as prices change
const MAX_FACTS = { list: 3, panel: 12 };
const cache = new Map(); // entries of /items, by id
const loaded = new Map(); // when they came, by id

export const titleOf = (id) => cache.get(id)?.title ?? id;
export const count = (n, name) => `${n.toLocaleString("en")} ${name}${n === 1 ? "" : "s"}`;

/** Cache entries of `/items`, or entries with only an id and a title. */
export function remember(entries) {
  for (const entry of entries) {
    if (entry.ratings !== undefined) loaded.set(String(entry.item), Date.now());
    else if (cache.has(String(entry.item))) continue;
    cache.set(String(entry.item), entry);
  }
}

/** Load the facts of items that are not cached, or were long ago, of as many as one address can name. */
export async function loadItems(ids) {
  let left = MAX_QUERY_LENGTH;
  const missing = [...new Set(ids)].filter((id) => !(Date.now() - loaded.get(id) < MAX_AGE_MS) && (left -= encodeURIComponent(id).length + 6) > 0);
  if (missing.length) remember((await request("items", { query: { item: missing } })).items);
}

/** An item's facts in a line: "Action, Comedy · 583 ratings", without a year that the title contains. */
export function facts(id, withCount = false) {
  const item = cache.get(id) ?? {};
  const fields = Object.entries(item).filter(([name, value]) => !NO_FACTS.has(name) && value !== null && value !== "" && !item.title.includes(`(${value})`));
  const texts = fields.map(([name, value]) => factText(name, value));
  const short = texts.filter((text) => text.length <= 60).slice(0, withCount ? MAX_FACTS.panel : MAX_FACTS.list);
  return [...short, ...(withCount && item.ratings !== undefined ? [count(item.ratings, "rating")] : [])].join(" · ");
}

function factText(name, value) {
  if (typeof value === "boolean") return value ? name : `not ${name}`;
  if (typeof value === "number") return name === "year" ? String(value) : `${name} ${value}`;
  return String([value].flat().join(", ")).replaceAll("|", ", ");
}

/** Examples of a condition and of a group limit, from what the table says of an item. */
export function exampleRules(id) {
  const fields = Object.entries(cache.get(id) ?? {}).filter(([name, value]) => !NO_FACTS.has(name) && value !== null && /^\w+$/.test(name));
  const tags = fields.map(([name, value]) => [name, Array.isArray(value) ? value[0] : /^[^|]+\|/.test(value) ? value.split("|")[0] : ""]).find(([, tag]) => tag);
  const number = fields.find(([name, value]) => typeof value === "number" && name === "year") ?? fields.find(([, value]) => typeof value === "number") ?? ["ratings", 20];
  const terms = [`${number[0]} >= ${number[1]}`, ...(tags ? [`'${tags[1].replaceAll("'", "\\'")}' in ${tags[0]}`] : [])];
  return { where: terms.join(" and "), perGroup: `${tags?.[0] ?? number[0]}: 2` };
}

/** Make a link that changes the state of the page. */
export function stateLink(change, properties, ...children) {
  const link = make("a", properties, ...children);
  link.dataset.go = JSON.stringify(change);
  return updateLink(link);
}

/** Update a state link to the present state; a link that changes nothing is marked as current. */
export function updateLink(link) {
  link.href = hrefFor(JSON.parse(link.dataset.go));
  if (link.getAttribute("href") === hrefFor({})) link.setAttribute("aria-current", "true");
  else link.removeAttribute("aria-current");
  return link;
}

const similarTo = (id) => ({ similar: id, why: "" });
export const titleLink = (entry, properties) => stateLink(similarTo(String(entry.item)), { dir: "auto", ...properties }, entry.title);
export const leadsTo = (link, id) => link.dataset.go === JSON.stringify(similarTo(id));

export const thumbs = (id, title) => ["likes", "dislikes"].map((kind) => thumb(kind === "likes", pickOf(id) === kind, title, () => pick(id, kind)));

/** Make a line of a list. number: text at its end; acts: whether it has thumbs and links. */
export function row(entry, { rank = null, number = null, acts = true } = {}) {
  const id = String(entry.item);
  const text = facts(id);
  const nearest = (entry.why ?? []).flatMap((reason, n) => [n ? ", " : "similar to ", titleLink(reason, { className: "quiet" })]);
  return make(
    "li", {},
    rank === null ? null : make("span", { className: "rank" }, String(rank)),
    titleLink(entry, { className: "title", data: { act: "title" } }),
    number === null ? null : make("span", { className: "number" }, number),
    acts ? make("span", { className: "acts" }, ...thumbs(id, entry.title), ...itemLinks(id, entry.title)) : null,
    text ? make("p", { className: "facts" }, text) : null,
    nearest.length ? make("p", { className: "nearest" }, ...nearest) : null,
  );
}

/** Links to similar items and, unless the list is for an anonymous user, to the explanation of this one. */
export function itemLinks(id, title) {
  const similar = stateLink(similarTo(id), { ariaLabel: `Similar to ${title}`, data: { act: "similar" } }, "Similar");
  return isAnonymous() ? [similar] : [similar, stateLink({ why: id, similar: "" }, { ariaLabel: `Why ${title}`, data: { act: "why" } }, "Why")];
}

/** Replace the lines of a list and keep the focus in its place; `fallback` gets it if nothing is left there. */
export function refill(list, lines, fallback) {
  const focused = list.contains(document.activeElement) ? document.activeElement : null;
  const index = focused ? [...list.children].indexOf(focused.closest("li")) : -1;
  list.replaceChildren(...lines);
  if (!focused) return;
  const line = list.children[Math.min(index, lines.length - 1)];
  (line?.querySelector(`[data-act="${focused.dataset.act}"]`) ?? line?.querySelector("a, button") ?? fallback).focus();
}
