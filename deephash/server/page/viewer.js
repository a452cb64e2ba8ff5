// The large view: one image, what is known of it, and the bits where it differs from the query.
import { backOr, go } from "./address.js";
import * as api from "./api.js";
import { differing, drawBits } from "./bits.js";
import { announce, byId, element, icon, takesText } from "./elements.js";
import { bytes, count, date, fileName } from "./format.js";
import { addId, searchById } from "./queries.js";
import * as thumbnails from "./thumbnails.js";

let nBits = 64;
let shownId = null;
let pending = null;
let around = { before: () => null, after: () => null, known: () => null, codeOf: () => null, closed: () => {} };

/** Prepares the dialog; ``neighbours`` knows the images around one in the list, and the query's code. */
export function prepareViewer(bits, neighbours) {
  nBits = bits;
  around = neighbours;
  const dialog = byId("viewer");
  dialog.addEventListener("close", () => {
    if (shownId === null) return;
    const id = shownId;
    leave();
    backOr({ view: null, of: 0 });
    around.closed(id);
  });
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog) dialog.close();
  });
  dialog.addEventListener("keydown", (event) => {
    if (takesText(event.target)) return;
    if (event.key === "ArrowLeft") move(around.before(shownId));
    if (event.key === "ArrowRight") move(around.after(shownId));
    if (event.key === " " && !event.target.closest("button, a")) dialog.close();
  });
}

function move(id) {
  if (id !== null) go({ view: id }, { replace: true });
}

function leave() {
  shownId = null;
  pending?.abort();
}

/** Shows the image of a state, or nothing. */
export async function drawViewer({ view, of }) {
  const dialog = byId("viewer");
  if (view === null) {
    leave();
    if (dialog.open) dialog.close();
    return;
  }
  const wasOpen = dialog.open;
  shownId = view;
  pending?.abort();
  pending = new AbortController();
  const { signal } = pending;
  try {
    const item = around.known(view, of) ?? (await load(view, dialog, signal));
    const code = await around.codeOf(of);
    if (signal.aborted) return;
    draw(dialog, item, code);
  } catch (error) {
    if (api.wasAborted(error)) return;
    drawMessage(dialog, error.message);
  }
  if (!dialog.open) dialog.showModal();
  if (!wasOpen) byId("viewer-close").focus();
}

async function load(id, dialog, signal) {
  drawMessage(dialog, "Loading …");
  if (!dialog.open) dialog.showModal();
  return api.image(id, { signal });
}

function closeButton() {
  const close = () => byId("viewer").close();
  const label = { "aria-label": "Close", title: "Close (Esc)" };
  return element(
    "button",
    { id: "viewer-close", class: "icon-button close", type: "button", ...label, onclick: close },
    icon("close"),
  );
}

function drawMessage(dialog, sentence) {
  const title = element("h2", { id: "viewer-name" }, "Image");
  dialog.replaceChildren(
    element("div", { class: "viewer-note" }, title, element("p", { role: "status" }, sentence)),
    closeButton(),
  );
}

function draw(dialog, item, queryCode) {
  const hadFocus = document.activeElement?.dataset?.step;
  const name = fileName(item.path);
  const img = element("img", { alt: item.label ? `${name}, ${item.label}` : name });
  const stage = element("div", { class: "stage" }, img, step("left", "Previous image", around.before(item.id)));
  stage.append(step("right", "Next image", around.after(item.id)));
  showLarge(img, item, stage);
  const apart = queryCode === null ? null : differing(item.code, queryCode, nBits).length;
  const facts = element("div", { class: "facts" });
  facts.append(
    element("h2", { id: "viewer-name" }, name),
    ...(apart === null ? [] : [distanceLine(apart)]),
    bitsFigure(item, queryCode),
    factList(item),
    actions(item),
  );
  dialog.replaceChildren(stage, facts, closeButton());
  if (hadFocus) dialog.querySelector(`[data-step="${hadFocus}"]`)?.focus();
  else if (dialog.open) byId("viewer-close").focus();
  announce(apart === null ? name : `${name}, distance ${apart}`);
}

function step(side, label, id) {
  const attributes = {
    class: `step ${side}`,
    type: "button",
    "data-step": side,
    "aria-label": label,
    disabled: id === null,
  };
  return element("button", { ...attributes, onclick: () => move(id) }, icon(side));
}

/** Shows what is at hand at once, and the large picture when it has come. */
function showLarge(img, item, stage) {
  let isLarge = false;
  // A small picture is not blown up beyond recognition.
  img.style.maxWidth = `${item.width * 3}px`;
  img.style.maxHeight = `${item.height * 3}px`;
  thumbnails.request(item.id, thumbnails.sizeFor(160), (url) => {
    if (url && !isLarge) img.src = url;
  });
  thumbnails.request(item.id, 1024, (url, error) => {
    if (url) {
      isLarge = true;
      img.src = url;
    } else stage.append(element("p", { class: "stage-error", role: "alert" }, error.message));
  });
}

function distanceLine(apart) {
  const number = element("strong", {}, String(apart));
  return element("p", { class: "apart" }, number, ` of ${nBits} bits differ from the query`);
}

function bitsFigure(item, queryCode) {
  const caption =
    queryCode === null
      ? `Its code: ${nBits} bits`
      : "Colour: where the codes differ. Filled: 1 in this image, hollow: 1 in the query.";
  return element(
    "figure",
    { class: "code" },
    drawBits(item.code, nBits, queryCode),
    element("figcaption", {}, caption),
  );
}

function factList(item) {
  const pairs = [
    ["Path", item.path],
    ["Size", `${count(item.width)} × ${count(item.height)} pixels, ${bytes(item.n_bytes)}`],
    ["Label", item.label],
    ["Changed", date(item.mtime_ns)],
    ...Object.entries(item.metadata).map(([key, value]) => [key, value === null ? "—" : String(value)]),
    ["Number", String(item.id)],
  ];
  const shown = pairs.filter(([, value]) => value !== null);
  return element("dl", {}, shown.map(([key, value]) => [element("dt", {}, key), element("dd", {}, value)]).flat());
}

function actions(item) {
  const search = element("button", {
    class: "button primary",
    type: "button",
    onclick: () => leaveFor(() => searchById(item.id)),
  });
  search.append(icon("search"), "Search by it");
  const add = element("button", {
    class: "button",
    type: "button",
    onclick: () => leaveFor(() => void addId(item.id)),
  });
  add.append(icon("plus"), "Add to the query");
  const copy = element("button", { class: "button", type: "button", onclick: () => void copyPath(item.path) });
  copy.append(icon("copy"), "Copy path");
  const file = element("a", { class: "button", href: api.fileUrl(item.id), target: "_blank", rel: "noopener" });
  file.append(icon("expand"), "Original");
  return element("div", { class: "buttons" }, search, add, copy, file);
}

/** The dialog closes because the page goes on, not back. */
function leaveFor(act) {
  leave();
  byId("viewer").close();
  act();
}

async function copyPath(path) {
  try {
    await navigator.clipboard.writeText(path);
    announce("Path copied");
  } catch {
    announce("The path could not be copied");
  }
}
