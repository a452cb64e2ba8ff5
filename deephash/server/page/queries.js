// What to search by: images dropped, pasted, chosen or clicked, in a bar of chips.
import { go, state } from "./address.js";
import * as api from "./api.js";
import { drawBits } from "./bits.js";
import { byId, element, icon, notify } from "./elements.js";
import { fileOf, keepPreview, previewOf } from "./previews.js";
import { showThumbnail } from "./thumbnails.js";

const MOST = 16;
let nBits = 64;
let loading = 0;

const same = (a, b) => ("id" in a ? a.id === b.id : a.code === b.code);

/** Prepares the bar, and the whole window for images that are dropped or pasted. */
export function prepareQueries(limits) {
  nBits = limits.n_bits;
  const input = byId("files");
  byId("choose").addEventListener("click", () => input.click());
  input.addEventListener("change", () => {
    void searchByFiles([...input.files], { add: state().queries.length > 0 });
    input.value = "";
  });
  byId("clear").addEventListener("click", () => {
    go({ queries: [], together: null, page: "search" });
    byId("choose").focus();
  });
  byId("together").addEventListener("change", (event) => void setTogether(event.target.checked));
  document.addEventListener("paste", (event) => {
    const files = imagesOf(event.clipboardData);
    if (files.length === 0 || document.querySelector("dialog[open]")) return;
    event.preventDefault();
    void searchByFiles(files, { add: false });
  });
  prepareDrops();
}

function imagesOf(transfer) {
  return [...(transfer?.files ?? [])].filter((file) => file.type === "" || file.type.startsWith("image/"));
}

function prepareDrops() {
  const zone = byId("drop-zone");
  const [whole, more] = zone.children;
  const hasFiles = (event) => [...(event.dataTransfer?.types ?? [])].includes("Files");
  const isElsewhere = (event) => event.target instanceof Element && event.target.closest("[data-takes-files]");
  const hide = () => (zone.hidden = true);
  window.addEventListener("dragenter", (event) => {
    if (!hasFiles(event) || isElsewhere(event)) return;
    whole.textContent = state().queries.length ? "Search by it alone" : "Search by it";
    more.hidden = state().queries.length === 0;
    zone.hidden = false;
  });
  window.addEventListener("dragover", (event) => {
    if (!hasFiles(event) || isElsewhere(event)) return;
    event.preventDefault();
    for (const target of zone.children) target.classList.toggle("over", target === event.target);
  });
  window.addEventListener("dragleave", (event) => {
    if (event.relatedTarget === null) hide();
  });
  window.addEventListener("drop", (event) => {
    hide();
    if (!hasFiles(event) || isElsewhere(event)) return;
    event.preventDefault();
    const files = imagesOf(event.dataTransfer);
    const add = event.target.closest?.("[data-drop]")?.dataset.drop === "add" || event.target.closest?.("#query-bar");
    if (files.length > 0) void searchByFiles(files, { add: Boolean(add) && state().queries.length > 0 });
    else notify("That is not an image file.");
  });
}

/** Searches by an indexed image alone. */
export const searchById = (id) => go({ page: "search", queries: [{ id }], together: null, view: null });

/** Adds an indexed image to the query. */
export const addId = (id) => setQueries([...state().queries, { id }]);

/** Searches by files; of several, those that cannot be read are told apart. */
export async function searchByFiles(files, { add }) {
  loading += files.length;
  drawQueries(state());
  const taken = files.slice(0, MOST);
  const found = await Promise.all(taken.map(codeOf));
  loading -= files.length;
  drawQueries(state());
  const queries = found.filter((code) => code !== null).map((code) => ({ code }));
  if (files.length > MOST) notify(`A query holds ${MOST} images: the first ${MOST} were taken.`);
  if (queries.length > 0) await setQueries(add ? [...state().queries, ...queries] : queries);
}

async function codeOf(file) {
  try {
    const { codes } = await api.encode(file);
    await keepPreview(codes[0], file);
    return codes[0];
  } catch (error) {
    notify(`${file.name || "The pasted image"}: ${error.message}`);
    return null;
  }
}

async function setQueries(wanted) {
  let queries = wanted.filter((one, place) => wanted.findIndex((other) => same(one, other)) === place);
  if (queries.length > MOST) notify(`A query holds ${MOST} images.`);
  queries = queries.slice(0, MOST);
  const together = state().together && queries.length > 1 ? await codeTogether(queries) : null;
  go({ page: "search", queries, together, view: null });
}

async function setTogether(wanted) {
  const { queries } = state();
  const together = wanted ? await codeTogether(queries) : null;
  if (wanted && together === null) byId("together").checked = false;
  go({ together });
}

/** Returns the code of the mean of all queries; null, and says why, where that cannot be had. */
async function codeTogether(queries) {
  const codes = queries.filter((one) => "code" in one).map((one) => one.code);
  const files = codes.map(fileOf);
  if (files.includes(null)) {
    notify(
      "As one query needs the images themselves, and of a shared address only codes are here: add the files again.",
    );
    return null;
  }
  const ids = queries.filter((one) => "id" in one).map((one) => one.id);
  try {
    return (await api.searchTogether(ids, files)).results[0].query.code;
  } catch (error) {
    notify(error.message);
    return null;
  }
}

/** Draws the chips of a state. */
export function drawQueries({ queries, together }) {
  const chips = queries.map((one) => chipOf(one, queries));
  const coming = Array.from({ length: loading }, () =>
    element("li", { class: "chip coming" }, element("span", { class: "unseen" }, "Reading an image")),
  );
  byId("queries").replaceChildren(...chips, ...coming);
  const some = queries.length > 0;
  byId("query-bar").classList.toggle("some", some);
  byId("choose-text").textContent = some ? "Add images" : "Choose images";
  byId("drop-hint").hidden = some || loading > 0;
  byId("clear").hidden = !some;
  byId("together-field").hidden = queries.length < 2;
  byId("together").checked = together !== null;
}

function chipOf(query, queries) {
  const what = nameOf(query);
  const remove = () => void setQueries(queries.filter((other) => !same(other, query)));
  const label = `Remove ${what} from the query`;
  const button = element("button", {
    class: "remove",
    type: "button",
    "aria-label": label,
    title: "Remove",
    onclick: remove,
  });
  button.append(icon("close"));
  return element("li", { class: "chip" }, pictureOf(query), button);
}

export const nameOf = (query) => ("id" in query ? `image ${query.id}` : "your image");

/** Returns a small picture of a query. */
export function pictureOf(query) {
  const alt = `Query: ${nameOf(query)}`;
  if ("id" in query) {
    const img = element("img", { alt });
    showThumbnail(img, query.id, 128, { onError: (error) => (img.title = error.message) });
    return img;
  }
  const preview = previewOf(query.code);
  if (preview) return element("img", { alt, src: preview, class: "loaded" });
  const drawn = drawBits(query.code, Math.min(nBits, query.code.length * 4));
  drawn.setAttribute("aria-label", "Query: a code");
  return drawn;
}
