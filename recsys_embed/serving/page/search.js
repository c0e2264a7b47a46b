// The search field: a combobox whose list is what the service finds, after the ARIA pattern for such.

import { line } from "./api.js";
import { meet } from "./items.js";
import { make } from "./make.js";

/** Let an input find items. note(item): what stands beside a title; chosen(item); failed(error). */
export function combobox(input, list, { note, chosen, failed }) {
  const ask = line();
  let [found, at, timer] = [[], -1, 0];

  const close = () => {
    clearTimeout(timer);
    list.hidden = true;
    at = -1;
    input.setAttribute("aria-expanded", "false");
    input.removeAttribute("aria-activedescendant");
  };
  const move = (to) => {
    at = found.length ? (to + found.length) % found.length : -1;
    [...list.children].forEach((option, n) => found.length && option.setAttribute("aria-selected", String(n === at)));
    if (at < 0) return;
    input.setAttribute("aria-activedescendant", list.children[at].id);
    list.children[at].scrollIntoView({ block: "nearest" });
  };
  const choose = (item) => {
    input.value = "";
    close();
    chosen(item);
  };
  const option = (item, n) => {
    const line = make("li", { id: `found-${n}`, role: "option" }, make("span", { dir: "auto", className: "title" }, item.title), make("span", { className: "facts" }, note(item)));
    line.addEventListener("pointerdown", (event) => event.preventDefault()); // the field keeps the focus
    line.addEventListener("click", () => choose(item));
    return line;
  };
  const look = async () => {
    try {
      const query = input.value.trim();
      const { items } = await ask("items", { query: query ? { query, k: 8 } : { k: 8 } });
      if (document.activeElement !== input || input.value.trim() !== query) return;
      found = items;
      meet(items);
      list.replaceChildren(...(found.length ? found.map(option) : [make("li", { role: "option", ariaDisabled: "true" }, "Nothing is called so")]));
      list.hidden = false;
      input.setAttribute("aria-expanded", "true");
      move(0);
    } catch (error) {
      failed(error);
    }
  };

  input.addEventListener("input", () => {
    clearTimeout(timer);
    if (input.value.trim()) timer = setTimeout(look, 120);
    else close();
  });
  input.addEventListener("blur", close);
  input.addEventListener("keydown", (event) => {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (step) {
      event.preventDefault();
      if (list.hidden) look();
      else move(at + step);
    } else if (event.key === "Enter" && at >= 0) {
      event.preventDefault();
      choose(found[at]);
    } else if (event.key === "Escape") {
      event.preventDefault();
      if (list.hidden) input.value = "";
      close();
    }
  });
}
