// Items: what the item table says of them, and how one stands in a list.

import { ask } from "./api.js";
import { make, thumb } from "./make.js";
import { address, kindOf, nobody, pick } from "./state.js";

const NO_FACTS = new Set(["item", "title", "score", "rank", "why", "rating", "ratings", "known_words", "item_id"]);
const known = new Map(); // entries of /items, by id

export const titleOf = (id) => known.get(id)?.title ?? id;
export const count = (n, name) => `${n.toLocaleString("en")} ${name}${n === 1 ? "" : "s"}`;

/** Take in entries of `/items`, or such as only name an item and its title. */
export function meet(entries) {
  for (const entry of entries) if (entry.ratings !== undefined || !known.has(String(entry.item))) known.set(String(entry.item), entry);
}

/** Ask for what the item table says of items, where that is not known yet; of as many as an address has room for. */
export async function learn(ids) {
  let room = 8000;
  const missing = [...new Set(ids)].filter((id) => known.get(id)?.ratings === undefined && (room -= encodeURIComponent(id).length + 6) > 0);
  if (missing.length) meet((await ask("items", { query: { item: missing } })).items);
}

/** What the item table says, in a line: "Action, Comedy · 583 ratings"; a year that the title has is not said twice. */
export function facts(id, rated = false) {
  const item = known.get(id) ?? {};
  const said = Object.entries(item).filter(([name, value]) => !NO_FACTS.has(name) && value !== null && value !== "" && !item.title.includes(`(${value})`));
  const texts = said.map(([name, value]) => (typeof value === "number" ? (name === "year" ? String(value) : `${name} ${value}`) : String([value].flat().join(", ")).replaceAll("|", ", ")));
  const short = texts.filter((text) => text.length <= 60).slice(0, 3);
  return [...short, ...(rated && item.ratings !== undefined ? [count(item.ratings, "rating")] : [])].join(" · ");
}

/** A link to this view with something changed. */
export function to(change, properties, ...children) {
  const made = make("a", properties, ...children);
  made.dataset.go = JSON.stringify(change);
  return point(made);
}

/** Let such a link lead on from the view that is shown now; one that leads nowhere else says so. */
export function point(made) {
  made.href = address(JSON.parse(made.dataset.go));
  if (made.getAttribute("href") === address({})) made.setAttribute("aria-current", "true");
  else made.removeAttribute("aria-current");
  return made;
}

const similarTo = (id) => ({ similar: id, why: "" });
export const link = (entry, properties) => to(similarTo(String(entry.item)), { dir: "auto", ...properties }, entry.title);
export const isTo = (made, id) => made.dataset.go === JSON.stringify(similarTo(id));

export const thumbs = (id, title) => ["likes", "dislikes"].map((kind) => thumb(kind === "likes", kindOf(id) === kind, title, () => pick(id, kind)));

/** A line of a list. number: what stands at its end; acts: thumbs and links. */
export function row(entry, { rank = null, number = null, acts = true } = {}) {
  const id = String(entry.item);
  const said = facts(id);
  const near = (entry.why ?? []).flatMap((reason, n) => [n ? ", " : "near to ", link(reason, { className: "quiet" })]);
  return make(
    "li", {},
    rank === null ? null : make("span", { className: "rank" }, String(rank)),
    link(entry, { className: "title", data: { act: "title" } }),
    number === null ? null : make("span", { className: "number" }, number),
    acts ? make("span", { className: "acts" }, ...thumbs(id, entry.title), ...moves(id, entry.title)) : null,
    said ? make("p", { className: "facts" }, said) : null,
    near.length ? make("p", { className: "near" }, ...near) : null,
  );
}

/** Links to what is similar and, where there is somebody to explain it for, why it is in the list. */
export function moves(id, title) {
  const similar = to(similarTo(id), { ariaLabel: `Similar to ${title}`, data: { act: "similar" } }, "Similar");
  return nobody() ? [similar] : [similar, to({ why: id, similar: "" }, { ariaLabel: `Why ${title}`, data: { act: "why" } }, "Why")];
}

/** Fill a list anew; the focus stays at the place where it was. */
export function refill(list, lines, otherwise) {
  const held = list.contains(document.activeElement) ? document.activeElement : null;
  const at = held ? [...list.children].indexOf(held.closest("li")) : -1;
  list.replaceChildren(...lines);
  if (!held) return;
  const there = list.children[Math.min(at, lines.length - 1)];
  (there?.querySelector(`[data-act="${held.dataset.act}"]`) ?? there?.querySelector("a, button") ?? otherwise).focus();
}
