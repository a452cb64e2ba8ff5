// Makes elements, draws icons, and speaks to screen readers.

/** Returns an element; attributes named on… are listeners, null and false leave an attribute out. */
export function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (name === "class") made.className = value;
    else made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return made;
}

const SVG = "http://www.w3.org/2000/svg";

export function svgElement(tag, attributes = {}, ...children) {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

// Strokes on a field of 16 × 16.
const ICONS = {
  search: "M7 2.5a4.5 4.5 0 1 0 0 9a4.5 4.5 0 0 0 0-9M10.4 10.4L14 14",
  copies: "M5.5 5.5h8v8h-8zM3 10.5H2.5v-8h8V3",
  stack: "M8 2.5L14 5.5L8 8.5L2 5.5zM2 8.5L8 11.5L14 8.5M2 11.2L8 14.2L14 11.2",
  contrast: "M8 2.5a5.5 5.5 0 1 0 0 11a5.5 5.5 0 0 0 0-11M8 2.5v11M8 5l4.6 0M8 8h5.5M8 11h4.6",
  image: "M2.5 3h11v10h-11zM2.5 11l3.2-3.2l2.8 2.8l2-2l3 3M10.2 5.8h.1",
  sliders: "M2.5 5h6M12 5h1.5M10.2 3.2v3.6M2.5 11h1.5M7.5 11h6M5.8 9.2v3.6",
  expand: "M9.5 2.5h4v4M13.2 2.8L9 7M6.5 13.5h-4v-4M2.8 13.2L7 9",
  plus: "M8 3v10M3 8h10",
  close: "M4 4l8 8M12 4l-8 8",
  left: "M10 3L5 8l5 5",
  right: "M6 3l5 5l-5 5",
  shield: "M8 2l5 2v4c0 3-2.2 5-5 6c-2.8-1-5-3-5-6V4z",
  download: "M8 2.5v8M4.8 7.5L8 10.7l3.2-3.2M3 13.5h10",
  copy: "M5.5 5.5h8v8h-8zM3 10.5H2.5v-8h8V3",
  folder: "M2 4h4l1.5 2H14v7H2z",
  sync: "M13 6.5A5.3 5.3 0 0 0 3.4 5.2M3 9.5a5.3 5.3 0 0 0 9.6 1.3M3.2 2.6v2.8H6M12.8 13.4v-2.8H10",
  upload: "M8 10.5v-8M4.8 5.5L8 2.3l3.2 3.2M3 13.5h10",
  check: "M3 8.5l3.3 3.3L13 4.8",
};

/** Returns a drawing that screen readers pass over. */
export function icon(name) {
  const path = svgElement("path", { d: ICONS[name] });
  return svgElement("svg", { viewBox: "0 0 16 16", class: "icon", "aria-hidden": "true" }, path);
}

/** Draws the icons that the page itself asks for. */
export function drawIcons() {
  for (const place of document.querySelectorAll("[data-icon]")) place.replaceChildren(icon(place.dataset.icon));
}

export const byId = (id) => document.getElementById(id);

/** Has screen readers say a sentence when they are free. */
export function announce(sentence) {
  const place = byId("announcement");
  place.textContent = "";
  requestAnimationFrame(() => {
    place.textContent = sentence;
  });
}

/** Shows a sentence at the edge of the page until it is read; screen readers say it at once. */
export function notify(sentence, { seconds = 9 } = {}) {
  const places = byId("notices");
  const remove = () => notice.remove();
  const close = element("button", { class: "icon-button", type: "button", "aria-label": "Dismiss", onclick: remove });
  close.append(icon("close"));
  const notice = element("div", { class: "notice" }, element("span", {}, sentence), close);
  for (const old of [...places.children].filter((other) => other.firstChild.textContent === sentence)) old.remove();
  places.append(notice);
  setTimeout(remove, seconds * 1000);
}

/** Returns a function that calls another once no further call has come for some milliseconds. */
export function debounced(work, milliseconds) {
  let timer = 0;
  return (...values) => {
    clearTimeout(timer);
    timer = setTimeout(() => work(...values), milliseconds);
  };
}

/** Returns whether keys pressed on an element mean text. */
export const takesText = (target) =>
  target instanceof HTMLElement && target.matches("input:not([type=checkbox], [type=range]), textarea, select");
