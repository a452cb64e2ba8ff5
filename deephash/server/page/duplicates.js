// The review of copies: one set after another, by keyboard or by hand, and at the end a plan file.
import { filterOf, go, state } from "./address.js";
import * as api from "./api.js";
import { CopyCard } from "./copy_card.js";
import * as decisions from "./decisions.js";
import { announce, byId, debounced, element, notify, takesText } from "./elements.js";
import { bytes, counted, fileName } from "./format.js";
import { bestOf, isProtected, membersOf, pairsOf, planOf, propose, reasonFor } from "./plan.js";
import { drawProtected } from "./protected.js";
import { Rows } from "./rows.js";
import { request, sizeFor } from "./thumbnails.js";

const MOST_SHOWN = 60;
const CARD = 420;
const IDS = [
  "kinds",
  "nearness",
  "near",
  "near-text",
  "mirrored-field",
  "mirrored",
  "accept-all",
  "shields",
  "review",
  "set-title",
  "copies",
  "rest",
  "review-message",
  "set-progress",
  "keys",
  "sum",
  "start-over",
  "save-plan",
];
const ACTS = {
  p: () => step(-1),
  k: () => pick("keep"),
  d: () => pick("drop"),
  b: () => keepOnly(),
  u: () => undo(),
  s: () => step(1),
  n: () => accept(),
};

let stats;
let parts;
let rows = null;
let shownList = null;
let cluster = null;
let picks = new Map();
let cards = [];
let focusNext = false;

/** Builds the view. */
export function prepareDuplicates(given) {
  stats = given;
  decisions.loadDecisions(stats);
  parts = Object.fromEntries(IDS.map((id) => [id, byId(id)]));
  parts.near.max = Math.max(4, Math.floor(stats.copy_bits / 4));
  parts.near.addEventListener("input", tellNearness);
  parts.near.addEventListener(
    "input",
    debounced(() => go({ near: Number(parts.near.value), at: 0 }, { replace: true }), 200),
  );
  parts.mirrored.addEventListener("change", () => go({ mirrored: parts.mirrored.checked, at: 0 }));
  parts["accept-all"].addEventListener("click", () => void acceptEvery());
  parts["save-plan"].addEventListener("click", downloadPlan);
  parts["start-over"].addEventListener("click", startOver);
  for (const tab of parts.kinds.children) tab.addEventListener("click", () => go({ kind: tab.dataset.kind, at: 0 }));
  parts.kinds.addEventListener("keydown", otherTab);
  for (const button of parts.keys.children) {
    const act = ACTS[button.getAttribute("aria-keyshortcuts").toLowerCase()];
    button.addEventListener("click", act);
  }
  document.addEventListener("keydown", pressed);
}

/** Draws the view as a state says. */
export function drawDuplicates(now) {
  if (now.page !== "duplicates") return;
  const radius = now.near ?? stats.copy_radius;
  for (const tab of parts.kinds.children) {
    tab.setAttribute("aria-selected", String(tab.dataset.kind === now.kind));
    tab.tabIndex = tab.dataset.kind === now.kind ? 0 : -1;
  }
  for (const part of [parts.nearness, parts["mirrored-field"]]) part.hidden = now.kind !== "near";
  parts.near.value = radius;
  parts.mirrored.checked = now.mirrored;
  tellNearness();
  const list = JSON.stringify(askedFor(now, radius));
  if (list !== shownList) {
    shownList = list;
    rows?.close();
    rows = new Rows(fetcher(now, radius));
    rows.onChange = () => drawCluster();
  }
  rows.want(now.at, now.at + 2);
  drawCluster();
  drawShields();
}

/** Starts anew once the index has changed. */
export function forgetDuplicates() {
  shownList = null;
}

function askedFor(now, radius) {
  const near = { radius, kind: "near", ...(now.mirrored ? { mirrored: true } : {}) };
  return { ...filterOf(now), ...(now.kind === "near" ? near : { identical: true }) };
}

function fetcher(now, radius) {
  const asked = askedFor(now, radius);
  return async (offset, limit, signal) => {
    const wait = { signal, onWait: (sentence) => tell(sentence) };
    const answer = await api.duplicates({ ...asked, offset, limit }, wait);
    return { total: answer.total, items: answer.clusters, copies: answer.n_copies, radius: answer.radius };
  };
}

function otherTab(event) {
  if (event.key !== "ArrowLeft" && event.key !== "ArrowRight") return;
  event.stopPropagation();
  const other = [...parts.kinds.children].find((one) => one !== document.activeElement);
  other.focus();
  other.click();
}

function tellNearness() {
  const value = Number(parts.near.value);
  parts["near-text"].textContent = String(value);
  parts.near.style.setProperty("--part", `${(100 * value) / Number(parts.near.max)}%`);
}

const keyButton = (key) => parts.keys.querySelector(`[aria-keyshortcuts="${key}"]`);

// -- one set --

function tell(sentence) {
  parts["review-message"].replaceChildren(element("p", {}, sentence));
  parts["review-message"].hidden = false;
}

function drawCluster() {
  const now = state();
  if (now.page !== "duplicates" || rows === null) return;
  parts.review.setAttribute("aria-labelledby", `tab-${now.kind}`);
  drawOutcome();
  const at = rows.total === null ? now.at : Math.min(now.at, Math.max(0, rows.total - 1));
  const found = rows.at(at);
  parts["accept-all"].hidden = now.kind !== "identical" || !rows.total;
  parts.copies.hidden = parts["set-title"].hidden = found === undefined;
  for (const key of parts.keys.children) key.disabled = found === undefined;
  if (found === undefined) {
    cluster = null;
    cards = [];
    parts.copies.replaceChildren();
    parts.rest.hidden = true;
    drawNothing();
    return;
  }
  parts["review-message"].hidden = true;
  if (found !== cluster) showCluster(found);
  drawPicks(at);
  preload(rows.at(at + 1));
}

function drawNothing() {
  const { kind } = state();
  if (rows.error !== null) {
    const again = element("button", { class: "button", type: "button", onclick: () => rows.retry() }, "Try again");
    parts["review-message"].replaceChildren(
      element("h2", {}, "That did not work"),
      element("p", {}, rows.error.message),
      again,
    );
  } else if (rows.total === null) {
    if (parts["review-message"].hidden) tell("Looking for copies …");
  } else {
    const says = kind === "near" ? "No near copies within this distance." : "No two files have the same content.";
    parts["review-message"].replaceChildren(element("h2", {}, "Nothing to review"), element("p", {}, says));
  }
  parts["review-message"].hidden = false;
}

function showCluster(found) {
  cluster = found;
  if (decisions.isDecided(cluster)) restorePicks();
  else proposePicks();
  const members = membersOf(cluster);
  const hadFocus = focusNext || parts.copies.contains(document.activeElement);
  focusNext = false;
  cards = members.slice(0, MOST_SHOWN).map((item, place) => new CopyCard(item, place, handlers));
  parts.copies.classList.toggle("few", members.length <= 3);
  parts.copies.replaceChildren(...cards.map((card) => card.root));
  parts.review.scrollTop = 0;
  const more = members.length - cards.length;
  parts.rest.hidden = more <= 0;
  parts.rest.textContent = `${counted(more, "more copy", "more copies")} of this set: treated as proposed.`;
  // The first that would be dropped is what there is to decide about.
  const first = cards.findIndex(({ item }) => picks.get(item.id) === "drop");
  select(Math.max(0, first), { focus: hadFocus });
}

function restorePicks() {
  const dropped = new Set(decisions.decidedPairs(cluster).map(({ drop }) => drop.path));
  picks = new Map(membersOf(cluster).map((item) => [item.id, dropped.has(item.path) ? "drop" : "keep"]));
}

function proposePicks() {
  const folders = decisions.protectedFolders();
  picks = propose(cluster, folders, { radius: rows.first.radius, nBits: stats.copy_bits });
}

const handlers = {
  select: (place) => select(place),
  pick: (place, wanted) => {
    select(place);
    pick(wanted);
  },
  open: (item) => go({ view: item.id }),
  protect: (folder) => protect([...decisions.protectedFolders(), folder]),
};

function selected() {
  return cards.find((card) => card.isCurrent) ?? null;
}

function select(place, { focus = false } = {}) {
  cards.forEach((card, other) => card.setCurrent(other === place));
  if (focus) cards[place]?.focus();
}

function drawPicks(at = state().at) {
  const folders = decisions.protectedFolders();
  const best = bestOf(cluster, folders);
  for (const card of cards) {
    card.draw({
      pick: picks.get(card.item.id),
      best: card.item === best ? reasonFor(best, cluster, folders) : null,
      isProtected: isProtected(card.item, folders),
      reference: best,
      nBits: stats.copy_bits,
    });
  }
  const isDone = decisions.isDecided(cluster);
  parts["set-title"].replaceChildren(
    `Set ${at + 1} of ${rows.total.toLocaleString("en")}`,
    element("span", { class: "kind" }, cluster.kind === "identical" ? "the same content" : "alike"),
    isDone ? element("span", { class: "kind done" }, "decided") : "",
  );
  keyButton("U").disabled = !isDone;
  keyButton("P").disabled = at === 0;
  keyButton("S").disabled = at + 1 >= rows.total;
}

function preload(next) {
  for (const item of next ? membersOf(next).slice(0, 4) : []) request(item.id, sizeFor(CARD), () => {});
}

// -- decisions --

function pick(wanted) {
  const card = selected();
  if (!card) return;
  const { item } = card;
  if (wanted === "drop" && isProtected(item, decisions.protectedFolders())) {
    notify(`${fileName(item.path)} lies in a protected folder: it is never dropped.`);
    return;
  }
  const others = [...picks].filter(([id, is]) => id !== item.id && is === "keep");
  if (wanted === "drop" && others.length === 0) {
    notify("One copy always stays: keep another one first.");
    return;
  }
  picks.set(item.id, wanted);
  decisions.undecide(cluster);
  drawPicks();
  drawOutcome();
  announce(`${wanted === "keep" ? "Kept" : "To be dropped"}: ${fileName(item.path)}`);
  const following = cards.indexOf(card) + 1;
  if (following < cards.length) select(following, { focus: parts.copies.contains(document.activeElement) });
}

function keepOnly() {
  const card = selected();
  if (!card) return;
  const folders = decisions.protectedFolders();
  for (const item of membersOf(cluster))
    picks.set(item.id, item === card.item || isProtected(item, folders) ? "keep" : "drop");
  decisions.undecide(cluster);
  drawPicks();
  drawOutcome();
  announce(`Only ${fileName(card.item.path)} is kept`);
}

/** Takes the set as it is marked, and goes on to the next. */
function accept() {
  if (cluster === null) return;
  const stored = decisions.decide([[cluster, pairsOf(cluster, picks, stats.copy_bits)]]);
  if (!stored) notify("This browser has no room for more decisions: they are kept until this page is closed.");
  if (state().at + 1 < rows.total) step(1);
  else {
    drawCluster();
    announce("That was the last set: the plan file has all decisions");
    parts["save-plan"].focus();
  }
}

function undo() {
  if (cluster === null) return;
  decisions.undecide(cluster);
  proposePicks();
  drawCluster();
  announce("Undone: as proposed");
}

function step(by) {
  const at = state().at + by;
  if (rows.total === null || at < 0 || at >= rows.total) return;
  focusNext = true;
  go({ at });
  if (cluster === null) return;
  const nDropped = [...picks.values()].filter((is) => is === "drop").length;
  announce(`Set ${at + 1} of ${rows.total}: ${nDropped} to drop of ${picks.size}`);
}

/** Decides all sets of identical files as proposed. */
async function acceptEvery() {
  parts["accept-all"].disabled = true;
  const folders = decisions.protectedFolders();
  const accepted = [];
  try {
    for (let offset = 0; offset !== null;) {
      const answer = await api.duplicates({ ...filterOf(state()), identical: true, offset, limit: 500 });
      for (const found of answer.clusters.filter((one) => !decisions.isDecided(one))) {
        const proposed = propose(found, folders, { radius: 0, nBits: stats.copy_bits });
        accepted.push([found, pairsOf(found, proposed, stats.copy_bits)]);
      }
      offset = answer.next_offset;
    }
    decisions.decide(accepted);
    announce(`${counted(accepted.length, "set")} decided as proposed`);
  } catch (error) {
    notify(error.message);
  }
  parts["accept-all"].disabled = false;
  drawCluster();
}

function protect(folders) {
  decisions.setProtected(folders);
  if (cluster !== null) {
    decisions.undecide(cluster);
    proposePicks();
  }
  drawShields();
  drawCluster();
}

function drawShields() {
  const known = [...stats.roots, ...cards.map((card) => card.folder)];
  drawProtected(parts.shields, decisions.protectedFolders(), { known, onChange: protect });
}

function startOver() {
  decisions.forgetDecisions();
  drawCluster();
  announce("All decisions are forgotten");
}

// -- the plan --

function drawOutcome() {
  const { leftOut, nFiles: n, nBytes } = planOf(stats.index, decisions.allPairs(), decisions.protectedFolders());
  const left = leftOut ? `, ${leftOut} left out (kept elsewhere or protected)` : "";
  const nSets = decisions.numberDecided();
  const says = nSets
    ? `${counted(nSets, "set")} decided: ${counted(n, "file")} to drop, ${bytes(nBytes)}${left}`
    : "Nothing is decided yet";
  if (parts.sum.textContent !== says) parts.sum.textContent = says;
  parts["save-plan"].disabled = n === 0;
  parts["save-plan"].classList.toggle("primary", n > 0);
  parts["start-over"].hidden = decisions.numberDecided() === 0;
  parts["set-progress"].max = Math.max(1, rows?.total ?? 1);
  parts["set-progress"].value = Math.min(decisions.numberDecided(), parts["set-progress"].max);
}

function downloadPlan() {
  const { plan } = planOf(stats.index, decisions.allPairs(), decisions.protectedFolders());
  const url = URL.createObjectURL(new Blob([`${JSON.stringify(plan, null, 1)}\n`], { type: "application/json" }));
  const name = `${fileName(stats.index).replace(/\.dhx$/, "")}-plan.json`;
  element("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
  notify(`${name} is saved. Nothing was changed yet: deephash apply ${name} shows what it would do.`, { seconds: 20 });
}

// -- keys --

function pressed(event) {
  if (state().page !== "duplicates" || takesText(event.target) || event.altKey || event.ctrlKey || event.metaKey)
    return;
  if (document.querySelector("dialog[open]") || rows === null) return;
  const current = cards.findIndex((card) => card.isCurrent);
  const keys = {
    ...ACTS,
    ArrowRight: () => select(Math.min(cards.length - 1, current + 1), { focus: true }),
    ArrowLeft: () => select(Math.max(0, current - 1), { focus: true }),
  };
  const act = keys[event.key.length === 1 ? event.key.toLowerCase() : event.key];
  const isSliding = event.target === parts.near && event.key.startsWith("Arrow");
  if (!act || isSliding) return;
  event.preventDefault();
  act();
}
