// The folders from which nothing is ever dropped: their list, and how it is changed.
import { element, icon } from "./elements.js";

/** Draws the panel in a details element; ``known`` folders are offered, ``onChange(folders)`` hears of changes. */
export function drawProtected(place, folders, { known, onChange }) {
  const input = element("input", {
    type: "text",
    id: "protect",
    placeholder: "/photos/originals",
    list: "folders",
    autocomplete: "off",
    spellcheck: "false",
  });
  const offered = [...new Set(known)].map((folder) => element("option", { value: folder }));
  const add = (event) => {
    event.preventDefault();
    if (input.value.trim()) onChange([...folders, input.value.trim()]);
    place.querySelector("input").focus();
  };
  const form = element(
    "form",
    { onsubmit: add },
    element("label", { for: "protect" }, "Never drop anything below"),
    input,
    element("datalist", { id: "folders" }, offered),
    element("button", { class: "button", type: "submit" }, "Protect"),
  );
  const remove = (folder) => {
    onChange(folders.filter((other) => other !== folder));
    place.querySelector("summary").focus();
  };
  const number = folders.length ? element("span", { class: "count" }, String(folders.length)) : "";
  const list = element(
    "ul",
    { "aria-label": "Protected folders" },
    folders.map((folder) => folderItem(folder, remove)),
  );
  place.replaceChildren(
    element("summary", { class: "button" }, icon("shield"), "Protected folders", number),
    element("div", { class: "protected-panel" }, form, folders.length ? list : ""),
  );
}

function folderItem(folder, remove) {
  const label = `Protect ${folder} no longer`;
  const button = element("button", { class: "icon-button", type: "button", "aria-label": label }, icon("close"));
  button.addEventListener("click", () => remove(folder));
  return element("li", {}, icon("shield"), element("span", {}, folder), button);
}
