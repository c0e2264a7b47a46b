// DOM elements. Data from the service enter the page as text only: nothing here takes markup.

/** Make an element with properties by name, and children, which are elements or text; null is left out. */
export function make(name, properties = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (key === "data") Object.assign(element.dataset, value);
    else element[key] = value;
  }
  element.append(...children.filter((child) => child !== null));
  return element;
}

const SVG = "http://www.w3.org/2000/svg";

/** Make a button with a thumb, up or down. */
export function thumb(up, pressed, name, onClick) {
  const picture = document.createElementNS(SVG, "svg");
  const use = document.createElementNS(SVG, "use");
  use.setAttribute("href", "#thumb");
  picture.append(use);
  picture.setAttribute("class", up ? "up" : "down");
  picture.setAttribute("aria-hidden", "true");
  const label = `${up ? "Like" : "Dislike"} ${name}`;
  const button = make("button", { type: "button", className: "icon", ariaLabel: label, title: up ? "Like" : "Dislike", ariaPressed: String(pressed), data: { act: up ? "like" : "dislike" } }, picture);
  button.addEventListener("click", onClick);
  return button;
}
