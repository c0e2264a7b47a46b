// The search field: a combobox with the items that the service finds, after the ARIA pattern for comboboxes.

import { latestOnly } from "./api.js";
import { remember } from "./items.js";
import { make } from "./make.js";

/** Make an input search for items. note(item): text beside a title; onChoose(item); onError(error). */
export function combobox(input, list, { note, onChoose, onError }) {
  const request = latestOnly();
  let [found, selected, timer] = [[], -1, 0];

  const close = () => {
    clearTimeout(timer);
    request.cancel(); // an answer that is still under way does not open the list again
    list.hidden = true;
    selected = -1;
    input.setAttribute("aria-expanded", "false");
    input.removeAttribute("aria-activedescendant");
  };
  const select = (index) => {
    selected = found.length ? (index + found.length) % found.length : -1;
    [...list.children].forEach((option, n) => found.length && option.setAttribute("aria-selected", String(n === selected)));
    if (selected < 0) return;
    input.setAttribute("aria-activedescendant", list.children[selected].id);
    list.children[selected].scrollIntoView({ block: "nearest" });
  };
  const choose = (item) => {
    input.value = "";
    close();
    onChoose(item);
  };
  const option = (item, n) => {
    const line = make("li", { id: `found-${n}`, role: "option" }, make("span", { dir: "auto", className: "title" }, item.title), make("span", { className: "facts" }, note(item)));
    line.addEventListener("pointerdown", (event) => event.preventDefault()); // the input keeps the focus
    line.addEventListener("click", () => choose(item));
    return line;
  };
  const search = async () => {
    try {
      const query = input.value.trim();
      const { items } = await request("items", { query: query ? { query, k: 8 } : { k: 8 } });
      if (document.activeElement !== input || input.value.trim() !== query) return;
      found = items;
      remember(items);
      list.replaceChildren(...(found.length ? found.map(option) : [make("li", { role: "option", ariaDisabled: "true" }, "No title matches")]));
      list.hidden = false;
      input.setAttribute("aria-expanded", "true");
      select(0);
    } catch (error) {
      onError(error);
    }
  };

  input.addEventListener("input", () => {
    clearTimeout(timer);
    if (input.value.trim()) timer = setTimeout(search, 120);
    else close();
  });
  input.addEventListener("blur", close);
  input.addEventListener("keydown", (event) => {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (step) {
      event.preventDefault();
      if (list.hidden) search();
      else select(selected + step);
    } else if (event.key === "Enter" && selected >= 0) {
      event.preventDefault();
      choose(found[selected]);
    } else if (event.key === "Escape") {
      event.preventDefault();
      if (list.hidden) input.value = "";
      close();
    }
  });
}
