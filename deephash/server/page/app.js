// Puts the page together: the address says what is shown, each part draws its share of it.
import { addressOf, filterOf, follow, go, onChange, rememberScroll, start, state } from "./address.js";
import * as api from "./api.js";
import { drawDuplicates, forgetDuplicates, prepareDuplicates } from "./duplicates.js";
import { announce, byId, drawIcons, element, icon, notify, takesText } from "./elements.js";
import { drawFilters, learnLabels, prepareFilters } from "./filters.js";
import { counted } from "./format.js";
import { Grid } from "./grid.js";
import { drawIndexing, prepareIndexing } from "./indexing.js";
import { addId, drawQueries, nameOf, pictureOf, prepareQueries, searchById } from "./queries.js";
import { Rows } from "./rows.js";
import { openSession } from "./session.js";
import { forgetThumbnails } from "./thumbnails.js";
import { drawViewer, prepareViewer } from "./viewer.js";

let stats;
let grid;
let shown = null; // the address of the list in the grid
let sections = [];

async function main() {
  drawIcons();
  await openSession();
  try {
    stats = await api.stats();
  } catch (error) {
    tellDead(error);
    return;
  }
  drawTop();
  grid = new Grid(byId("scroller"), {
    search: (item) => searchById(item.id),
    add: (item) => void addId(item.id).then(() => announce("Added to the query")),
    open: (item, place) => go({ view: item.id, of: place.section }),
    scrolled: rememberScroll,
    changed: tellList,
    heading: headingOf,
    failed: drawFailure,
    empty: drawEmpty,
  });
  prepareQueries(stats);
  prepareFilters(stats);
  prepareViewer(stats.n_bits, neighbours());
  prepareDuplicates(stats);
  prepareIndexing(stats, { onIndexed: () => void reload() });
  document.addEventListener("click", followLink);
  document.addEventListener("keydown", pressed);
  onChange(draw);
  start();
  if (stats.trouble) notify(`Images cannot be searched by: ${stats.trouble}`, { seconds: 30 });
}

function drawTop() {
  const name = stats.index.split(/[/\\]/).at(-1);
  byId("collection").textContent = name.replace(/\.dhx$/, "");
  byId("collection").title = stats.index;
  document.title = `${name.replace(/\.dhx$/, "")} · deephash`;
}

function tellDead(error) {
  const again = element("button", { class: "button", type: "button", onclick: () => location.reload() }, "Try again");
  const place = element("div", { class: "message", role: "alert" }, element("p", {}, error.message), again);
  byId("scroller").replaceChildren(place);
}

// -- what the address says --

function draw(now, { scroll }) {
  for (const page of ["search", "duplicates", "index"]) byId(`${page}-view`).hidden = now.page !== page;
  byId("filters").hidden = now.page === "index";
  byId("query-bar").hidden = now.page !== "search";
  for (const link of document.querySelectorAll("[data-view]")) {
    if (link.dataset.view === now.page) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  drawFilters(now);
  if (now.page === "search") {
    drawQueries(now);
    drawList(now, { scroll });
  }
  drawDuplicates(now);
  drawIndexing(now);
  void drawViewer(now);
}

function drawList(now, { scroll = 0, force = false }) {
  const address = addressOf({ ...now, view: null, of: 0 });
  if (address === shown && !force) return;
  shown = address;
  sections = sectionsOf(now);
  grid.show(sections, { scroll });
}

function sectionsOf(now) {
  const filter = filterOf(now);
  if (now.queries.length === 0) {
    const fetchPage = async (offset, limit, signal) => {
      const answer = await api.images({ ...filter, offset, limit }, { signal, onWait: announce });
      learnLabels(answer.images);
      return { total: answer.total, items: answer.images, code: null };
    };
    return [{ rows: new Rows(fetchPage), heading: null }];
  }
  const asked = now.together ? [{ code: now.together }] : now.queries;
  return asked.map((query) => ({ rows: new Rows(searcher(query, now, filter)), heading: headingFor(query, asked) }));
}

function searcher(query, now, filter) {
  return async (offset, limit, signal) => {
    const asked = { ...query, k: now.k, radius: now.radius, ...filter, offset, limit };
    const { results } = await api.search(asked, { signal, onWait: announce });
    const [{ total, matches, query: told }] = results;
    learnLabels(matches);
    return { total, items: matches, code: told.code };
  };
}

function headingFor(query, all) {
  if (all.length < 2) return null;
  return element("div", { class: "section-heading" }, pictureOf(query), element("span", {}, nameOf(query)));
}

function headingOf(rows) {
  if (rows.error) return rows.error.message;
  if (rows.total === null) return "Searching …";
  return rows.total === 0 ? "Nothing found within this distance and these filters" : foundIn(rows);
}

function foundIn(rows) {
  const nearest = rows.at(0)?.distance;
  const farthest = rows.at(rows.total - 1)?.distance;
  const span =
    nearest === undefined
      ? ""
      : farthest === undefined
        ? ` from distance ${nearest}`
        : `, distance ${nearest} to ${farthest}`;
  return `${counted(rows.total, "image")}${span}`;
}

function tellList(list) {
  const total = list.reduce((sum, { rows }) => sum + (rows.total ?? 0), 0);
  const isLoading = list.some(({ rows }) => rows.total === null && rows.error === null);
  const isFiltered = Boolean(state().path || state().label || state().where.length);
  byId("search-view").classList.toggle("loading", isLoading);
  const failed = list.find(({ rows }) => rows.error !== null);
  const says = failed
    ? failed.rows.error.message
    : isLoading
      ? "Loading …"
      : state().queries.length === 0
        ? `${counted(total, "image")}${isFiltered ? ` of ${stats.n_images.toLocaleString("en")}` : ""}`
        : list.length === 1
          ? foundIn(list[0].rows)
          : `${counted(total, "image")} for ${list.length} queries`;
  if (byId("summary").textContent !== says) byId("summary").textContent = says;
}

function drawFailure(place, error, retry) {
  const again = element("button", { class: "button", type: "button", onclick: retry }, icon("sync"), "Try again");
  place.replaceChildren(element("h2", {}, "That did not work"), element("p", {}, error.message), again);
}

function drawEmpty(place) {
  const now = state();
  const isFiltered = now.path || now.label || now.where.length || (now.queries.length && now.radius !== null);
  if (isFiltered) {
    const clear = () => go({ path: "", label: "", where: [], radius: null });
    const button = element("button", { class: "button", type: "button", onclick: clear }, "Clear the filters");
    place.replaceChildren(
      element("h2", {}, "Nothing found"),
      element("p", {}, "No image passes these filters."),
      button,
    );
  } else if (now.queries.length) {
    place.replaceChildren(element("h2", {}, "Nothing found"), element("p", {}, "The index has no other image."));
  } else {
    const link = element("a", { class: "button", href: "?page=index" }, icon("stack"), "Add images");
    place.replaceChildren(element("h2", {}, "No images yet"), element("p", {}, "The index is empty."), link);
  }
}

/** The index has changed: shows it as it is now, where it was scrolled to. */
async function reload() {
  try {
    stats = await api.stats();
  } catch {
    return; // said by the list
  }
  forgetThumbnails();
  forgetDuplicates();
  if (state().page === "search") drawList(state(), { force: true, scroll: byId("scroller").scrollTop });
  else shown = null;
}

// -- the large view walks through the list --

function neighbours() {
  const place = (id) => (id === null ? null : grid.placeOf(id, state().of));
  const beside = (id, by) => {
    const from = place(id);
    const found = from && grid.neighbour(from, by);
    if (!found || found.section !== from.section) return null;
    const item = grid.itemAt(found);
    if (!item) grid.want(found);
    return item?.id ?? null;
  };
  return {
    before: (id) => beside(id, -1),
    after: (id) => beside(id, 1),
    known: (id, of) => {
      const found = state().page === "search" ? grid.placeOf(id, of) : null;
      return found && grid.itemAt(found);
    },
    codeOf: (of) => queryCode(of),
    closed: (id) => {
      const found = state().page === "search" ? place(id) : null;
      if (found) grid.focus(found);
    },
  };
}

/** Returns the code that the images of a section are compared with. */
async function queryCode(of) {
  const now = state();
  if (now.page !== "search" || now.queries.length === 0) return null;
  if (now.together) return now.together;
  const query = now.queries[Math.min(of, now.queries.length - 1)];
  return query.code ?? sections[of]?.rows.first?.code ?? (await api.image(query.id)).code;
}

// -- links and keys of the whole page --

function followLink(event) {
  const link = event.target.closest?.("a[href]");
  if (!link || link.target || event.ctrlKey || event.metaKey || event.shiftKey || event.button !== 0) return;
  const url = new URL(link.href);
  if (url.origin !== location.origin || url.pathname !== location.pathname) return;
  event.preventDefault();
  if (link.classList.contains("skip")) skip();
  else {
    follow(url.search);
    announce(link.textContent.trim());
  }
}

function skip() {
  if (state().page === "search") grid.focus();
  else byId("main").focus();
}

function pressed(event) {
  if (event.key !== "/" || takesText(event.target) || document.querySelector("dialog[open]")) return;
  event.preventDefault();
  byId("path").focus();
}

void main();
