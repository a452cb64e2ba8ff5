// The index itself: what it holds, bringing it up to date, and how far that is.
import { state } from "./address.js";
import * as api from "./api.js";
import { announce, byId, element, icon, notify } from "./elements.js";
import { bytes, count, counted, day } from "./format.js";
import { JobCard } from "./job_card.js";

const ENDED = ["done", "failed", "cancelled"];
const AGAIN_MS = 3000;

let stats;
let parts;
let onIndexed;
let jobs = [];
let source = null; // of the job that is followed
let followed = null;
const cards = new Map();

/** Builds the view, and follows what is being indexed whatever view is shown. */
export function prepareIndexing(given, handlers) {
  stats = given;
  onIndexed = handlers.onIndexed;
  parts = build(byId("index-view"));
  document.addEventListener("visibilitychange", () => {
    if (!document.hidden) void refresh();
  });
  void refresh();
}

/** Draws the view as a state says. */
export function drawIndexing(now) {
  if (now.page === "index") void refresh();
}

// -- the view --

function build(view) {
  const facts = element("dl", { class: "index-facts" });
  const prune = checkbox("Forget images that are gone from disk");
  const labels = checkbox("Folder names are labels");
  const sync = element("button", { class: "button primary", type: "button" }, icon("sync"), "Sync now");
  sync.addEventListener("click", () => void startSync(null, prune, labels, sync));
  const list = element("ul", { class: "jobs", "aria-label": "Jobs" });
  const none = element("p", { class: "quiet" }, "Nothing has been indexed since the server was started.");
  view.replaceChildren(
    element(
      "div",
      { class: "index-columns" },
      panel("The collection", facts),
      panel(
        "Bring it up to date",
        element("p", { class: "quiet" }, "Reads what is new or changed in the folders of the index."),
        prune.field,
        labels.field,
        sync,
      ),
      panel("Add a folder", ...folderForm(labels)),
      panel("Upload images", ...uploadForm()),
      element(
        "section",
        { class: "panel wide", "aria-labelledby": "jobs-title" },
        element("h2", { id: "jobs-title" }, "Jobs"),
        none,
        list,
      ),
    ),
  );
  return { facts, list, none };
}

function panel(title, ...children) {
  const id = `panel-${title.toLowerCase().replaceAll(" ", "-")}`;
  return element("section", { class: "panel", "aria-labelledby": id }, element("h2", { id }, title), children);
}

function checkbox(text) {
  const input = element("input", { type: "checkbox" });
  return { input, field: element("label", { class: "check" }, input, text) };
}

function folderForm(labels) {
  const input = element("input", {
    id: "folder",
    type: "text",
    list: "addable",
    placeholder: "/photos/2024",
    autocomplete: "off",
    spellcheck: "false",
    required: true,
  });
  const allowed = [...new Set([...stats.addable_roots, ...stats.roots])];
  const options = element(
    "datalist",
    { id: "addable" },
    allowed.map((root) => element("option", { value: root })),
  );
  const button = element("button", { class: "button", type: "submit" }, icon("folder"), "Add folder");
  const add = async (event) => {
    event.preventDefault();
    if (await startSync([input.value.trim()], null, labels, button)) input.value = "";
  };
  const help = allowed.length
    ? `A folder on the server, below ${allowed.join(" or ")}.`
    : "The server was started without --root DIR: it takes no other folders.";
  const label = element("label", { for: "folder", class: "unseen" }, "Folder on the server");
  return [
    element("p", { class: "quiet" }, help),
    element("form", { class: "row", onsubmit: (event) => void add(event) }, label, input, options, button),
  ];
}

function uploadForm() {
  if (!stats.uploads)
    return [element("p", { class: "quiet" }, "This server keeps no uploads: start it with --uploads DIR.")];
  const input = element("input", {
    type: "file",
    accept: "image/*",
    multiple: true,
    hidden: true,
    "aria-label": "Images to add",
  });
  const button = element(
    "button",
    { class: "button", type: "button", onclick: () => input.click() },
    icon("upload"),
    "Choose images to add",
  );
  const zone = element(
    "div",
    { class: "upload-zone", "data-takes-files": "" },
    button,
    input,
    element("span", { class: "quiet" }, "or drop them here"),
  );
  input.addEventListener("change", () => {
    void upload([...input.files], button);
    input.value = "";
  });
  const over = (is) => zone.classList.toggle("over", is);
  zone.addEventListener("dragover", (event) => {
    event.preventDefault();
    over(true);
  });
  zone.addEventListener("dragleave", () => over(false));
  zone.addEventListener("drop", (event) => {
    event.preventDefault();
    over(false);
    void upload([...event.dataTransfer.files], button);
  });
  return [element("p", { class: "quiet" }, "They are copied to the server and become part of the index."), zone];
}

// -- what it does --

async function startSync(folders, prune, labels, button) {
  button.disabled = true;
  try {
    const job = await api.startSync({
      folders,
      prune: Boolean(prune?.input.checked),
      folder_labels: labels.input.checked,
    });
    announce("Started");
    take(job);
    return true;
  } catch (error) {
    notify(error.message);
    return false;
  } finally {
    button.disabled = false;
  }
}

/** Sends images, a request for as many as one may hold. */
async function upload(files, button) {
  button.disabled = true;
  const { max_images: most, max_body_bytes: room } = stats.limits;
  try {
    for (const batch of batches(files, most, room * 0.95)) take(await api.addImages(batch));
    announce(`${counted(files.length, "image")} sent`);
  } catch (error) {
    notify(error.message);
  } finally {
    button.disabled = false;
  }
}

function batches(files, most, room) {
  const made = [];
  let size = Infinity;
  for (const file of files) {
    if (size + file.size > room || made.at(-1).length >= most) {
      made.push([]);
      size = 0;
    }
    made.at(-1).push(file);
    size += file.size;
  }
  return made;
}

async function cancel(job) {
  try {
    take(await api.cancelJob(job.id));
  } catch (error) {
    notify(error.message);
  }
}

// -- jobs --

async function refresh() {
  try {
    [jobs, stats] = [(await api.jobs()).jobs, await api.stats()];
  } catch (error) {
    if (state().page === "index") notify(error.message);
    return;
  }
  draw();
  follow();
}

function take(job) {
  const known = jobs.findIndex(({ id }) => id === job.id);
  const before = known < 0 ? null : jobs[known];
  if (known < 0) jobs.unshift(job);
  else jobs[known] = job;
  if (before && !ENDED.includes(before.state) && ENDED.includes(job.state)) ended(job);
  draw();
  follow();
}

function ended(job) {
  const says = { done: "Indexing is done", failed: job.error, cancelled: "Indexing was cancelled" }[job.state];
  if (job.state === "failed") notify(says);
  else announce(says);
  onIndexed();
  void refresh();
}

/** Follows the oldest job that has not ended: one stream, as browsers open few connections to a server. */
function follow() {
  const next = jobs.filter(({ state: is }) => !ENDED.includes(is)).at(-1) ?? null;
  if (next?.id === followed) return;
  source?.close();
  source = null;
  followed = next?.id ?? null;
  if (next === null) return;
  source = new EventSource(api.eventsUrl(next.id));
  source.addEventListener("job", (event) => {
    const job = JSON.parse(event.data);
    if (ENDED.includes(job.state)) source?.close();
    take(job);
  });
  source.addEventListener("error", () => {
    source?.close();
    source = null;
    followed = null;
    setTimeout(() => void refresh(), AGAIN_MS);
  });
}

function draw() {
  drawFacts();
  drawBadge();
  parts.none.hidden = jobs.length > 0;
  const shown = jobs.slice(0, 20).map((job) => {
    if (!cards.has(job.id)) cards.set(job.id, new JobCard(() => void cancel(job)));
    const card = cards.get(job.id);
    card.draw(job);
    return card.root;
  });
  // Moving an element would take the focus from it.
  if (shown.some((one, place) => parts.list.children[place] !== one)) parts.list.replaceChildren(...shown);
}

function drawFacts() {
  const pairs = [
    ["Images", count(stats.n_images)],
    ["Skipped files", count(stats.n_skipped)],
    ["Code", `${stats.n_bits} bits`],
    ["Model", stats.model ? `${stats.model.name} (${stats.model.method}, ${stats.model.backbone})` : stats.trouble],
    ["On disk", bytes(stats.catalogue_bytes + stats.cache_bytes + stats.model_bytes)],
    ["Made", day(stats.created)],
    ["Index", stats.index],
    ["Folders", stats.roots.join("\n") || "none yet"],
  ];
  parts.facts.replaceChildren(...pairs.flatMap(([term, value]) => [element("dt", {}, term), element("dd", {}, value)]));
}

function drawBadge() {
  const running = jobs.filter(({ state: is }) => !ENDED.includes(is)).at(-1);
  const badge = byId("working");
  badge.hidden = running === undefined;
  if (running === undefined) return;
  const { done, total } = running.progress;
  badge.textContent = total ? `${Math.floor((100 * done) / total)} %` : "…";
}
