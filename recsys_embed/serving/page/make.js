// Elements. What comes from the service reaches the page as text alone: there is no way here to hand over markup.

/** Make an element: properties by name, then children, which are elements or text; null is left out. */
export function make(name, properties = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (key === "data") Object.assign(made.dataset, value);
    else made[key] = value;
  }
  made.append(...children.filter((child) => child !== null));
  return made;
}

const SVG = "http://www.w3.org/2000/svg";

/** A button with a thumb, up or down. */
export function thumb(up, pressed, name, act) {
  const picture = document.createElementNS(SVG, "svg");
  const use = document.createElementNS(SVG, "use");
  use.setAttribute("href", "#thumb");
  picture.append(use);
  picture.setAttribute("class", up ? "up" : "down");
  picture.setAttribute("aria-hidden", "true");
  const said = `${up ? "Like" : "Dislike"} ${name}`;
  const button = make("button", { type: "button", className: "icon", ariaLabel: said, title: up ? "Like" : "Dislike", ariaPressed: String(pressed), data: { act: up ? "like" : "dislike" } }, picture);
  button.addEventListener("click", act);
  return button;
}
