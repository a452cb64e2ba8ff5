// What the page shows, as its address says it: every state is a URL that can be shared, and Back leads back.

const PAGES = ["search", "duplicates", "index"];
const DEFAULT_K = 200;

const whole = (text, least, most) => {
  const value = /^\d{1,16}$/.test(text ?? "") ? Number(text) : null;
  return value !== null && value >= least && value <= most ? value : null;
};

const listeners = new Set();
let current = parse(location.search);

function parse(search) {
  const given = new URLSearchParams(search);
  const page = given.get("page");
  return Object.freeze({
    page: PAGES.includes(page) ? page : "search",
    queries: [
      ...given
        .getAll("id")
        .map((id) => ({ id: whole(id, 1, Number.MAX_SAFE_INTEGER) }))
        .filter(({ id }) => id !== null),
      ...given
        .getAll("code")
        .filter((code) => /^[0-9a-f]{1,256}$/.test(code))
        .map((code) => ({ code })),
    ],
    together: /^[0-9a-f]{1,256}$/.test(given.get("together") ?? "") ? given.get("together") : null,
    k: whole(given.get("k"), 1, 10_000) ?? DEFAULT_K,
    radius: whole(given.get("radius"), 0, 1024),
    path: given.get("path") ?? "",
    label: given.get("label") ?? "",
    where: given.getAll("where"),
    view: whole(given.get("view"), 1, Number.MAX_SAFE_INTEGER),
    of: whole(given.get("of"), 0, 15) ?? 0,
    kind: given.get("kind") === "near" ? "near" : "identical",
    near: whole(given.get("near"), 0, 1024),
    mirrored: given.get("mirrored") === "1",
    at: whole(given.get("at"), 0, Number.MAX_SAFE_INTEGER) ?? 0,
  });
}

/** Returns the address of a state, without what is as ever. */
export function addressOf(state) {
  const pairs = [];
  const put = (name, value) => pairs.push([name, String(value)]);
  if (state.page !== "search") put("page", state.page);
  for (const one of state.queries) "id" in one ? put("id", one.id) : put("code", one.code);
  if (state.together) put("together", state.together);
  if (state.k !== DEFAULT_K) put("k", state.k);
  if (state.radius !== null) put("radius", state.radius);
  if (state.path) put("path", state.path);
  if (state.label) put("label", state.label);
  for (const one of state.where) put("where", one);
  if (state.page === "duplicates") {
    if (state.kind === "near") put("kind", "near");
    if (state.near !== null) put("near", state.near);
    if (state.mirrored) put("mirrored", 1);
    if (state.at) put("at", state.at);
  }
  if (state.view !== null) put("view", state.view);
  if (state.view !== null && state.of) put("of", state.of);
  const search = new URLSearchParams(pairs).toString();
  return search ? `?${search}` : location.pathname;
}

export const state = () => current;

/** Changes what is shown. A step of its own in the history, unless it replaces the one at hand. */
export function go(changes, { replace = false } = {}) {
  const wanted = { ...current, ...changes };
  // As an address says it, and as the server answers: indexed images first.
  wanted.queries = [...wanted.queries.filter((one) => "id" in one), ...wanted.queries.filter((one) => "code" in one)];
  if (addressOf(wanted) === addressOf(current)) return;
  current = Object.freeze(wanted);
  if (replace) history.replaceState(history.state, "", addressOf(current));
  else history.pushState({ steps: (history.state?.steps ?? 0) + 1 }, "", addressOf(current));
  tell({});
}

/** Goes back where this page came from; where it was opened at this address, changes it instead. */
export function backOr(changes) {
  if (history.state?.steps > 0) history.back();
  else go(changes, { replace: true });
}

/** Remembers how far the list was scrolled, for the way back. */
export function rememberScroll(top) {
  history.replaceState({ ...history.state, scroll: Math.round(top) }, "");
}

/** Calls a listener with the state after each change, and with where the list was scrolled on the way back. */
export function onChange(listener) {
  listeners.add(listener);
}

function tell(moved) {
  for (const listener of listeners) listener(current, moved);
}

/** Calls all listeners with the state as it is. */
export const start = () => tell({ scroll: history.state?.scroll });

window.addEventListener("popstate", (event) => {
  current = parse(location.search);
  tell({ scroll: event.state?.scroll ?? 0 });
});

/** Follows a link within the page without loading it anew. */
export function follow(search) {
  const wanted = parse(search);
  if (addressOf(wanted) !== addressOf(current)) go(wanted);
}

/** The filters of a state, as parameters of a call. */
export const filterOf = ({ path, label, where }) => ({
  path: path === "" ? null : /[*?[]/.test(path) ? path : `*${path}*`,
  label: label === "" ? null : label,
  where,
});
