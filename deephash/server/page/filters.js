// Distance, number, path, label and metadata: fields that follow the address, and write it.
import { go, state } from "./address.js";
import { byId, debounced, element, icon, notify } from "./elements.js";

const DELAY_MS = 250;
const labels = new Set();
let nBits = 64;

/** Prepares the fields for codes of so many bits. */
export function prepareFilters(stats) {
  nBits = stats.n_bits;
  byId("distance").max = nBits;
  byId("k").max = stats.limits.max_k;
  field("distance", (value) => ({ radius: Number(value) >= nBits ? null : Number(value) }), { delay: 60 });
  field("k", (value) => (Number(value) >= 1 ? { k: Math.min(stats.limits.max_k, Math.trunc(Number(value))) } : {}));
  field("path", (value) => ({ path: value.trim() }));
  field("label", (value) => ({ label: value.trim() }));
  byId("distance").addEventListener("input", tellDistance);
  byId("where").addEventListener("keydown", (event) => {
    if (event.key === "Enter") addWhere();
    if (event.key === "Backspace" && event.target.value === "") go({ where: state().where.slice(0, -1) });
  });
  byId("where").addEventListener("change", addWhere);
  byId("filters").addEventListener("submit", (event) => event.preventDefault());
  byId("more").addEventListener("click", () => {
    const open = byId("more").getAttribute("aria-expanded") !== "true";
    byId("more").setAttribute("aria-expanded", String(open));
    byId("conditions").classList.toggle("open", open);
  });
}

/** One step in the history for all that is typed into a field while it has the focus. */
function field(id, changesOf, { delay = DELAY_MS } = {}) {
  const input = byId(id);
  let begun = false;
  const apply = () => {
    const changes = changesOf(input.value);
    const isNew = Object.entries(changes).some(([name, value]) => state()[name] !== value);
    if (!isNew) return;
    go({ ...changes, at: 0, view: null }, { replace: begun });
    begun = true;
  };
  const later = debounced(apply, delay);
  input.addEventListener("input", later);
  for (const event of ["change", "blur"]) input.addEventListener(event, apply);
  input.addEventListener("focus", () => (begun = false));
}

function addWhere() {
  const input = byId("where");
  const text = input.value.trim();
  if (text === "") return;
  if (!/^[^=]+=/.test(text)) {
    notify("Metadata is asked for as key=value, for example year=2024.");
    return;
  }
  input.value = "";
  if (!state().where.includes(text)) go({ where: [...state().where, text], at: 0, view: null });
}

function tellDistance() {
  const value = Number(byId("distance").value);
  byId("distance-text").textContent = value >= nBits ? "any" : `≤ ${value}`;
  byId("distance").setAttribute(
    "aria-valuetext",
    value >= nBits ? "any distance" : `at most ${value} of ${nBits} bits`,
  );
  byId("distance").style.setProperty("--part", `${(100 * value) / nBits}%`);
}

/** Draws the fields of a state; one that is being typed into is left alone. */
export function drawFilters(shown) {
  const set = (id, value) => {
    const input = byId(id);
    if (document.activeElement !== input || input.type === "range") input.value = value;
  };
  set("distance", shown.radius ?? nBits);
  set("k", shown.k);
  set("path", shown.path);
  set("label", shown.label);
  tellDistance();
  const asks = shown.page === "search" && shown.queries.length > 0;
  for (const one of document.querySelectorAll(".only-search")) {
    one.hidden = shown.page !== "search";
    one.classList.toggle("idle", !asks);
    one.querySelector("input").disabled = !asks;
    one.title = asks ? "" : "For a search by images";
  }
  byId("wheres").replaceChildren(...shown.where.map((text) => whereChip(text, shown.where)));
  const n =
    [shown.path, shown.label, shown.radius === null ? "" : "radius"].filter(Boolean).length + shown.where.length;
  byId("n-filters").hidden = n === 0;
  byId("n-filters").textContent = n;
}

function whereChip(text, all) {
  const remove = () => {
    go({ where: all.filter((other) => other !== text), at: 0, view: null });
    byId("where").focus();
  };
  const button = element("button", {
    class: "remove",
    type: "button",
    "aria-label": `Remove ${text}`,
    onclick: remove,
  });
  button.append(icon("close"));
  return element("li", { class: "where" }, text, button);
}

/** Offers the labels of images that were seen. */
export function learnLabels(items) {
  const before = labels.size;
  for (const { label } of items) if (label && labels.size < 500) labels.add(label);
  if (labels.size === before) return;
  byId("labels").replaceChildren(...[...labels].sort().map((label) => element("option", { value: label })));
}
