// A long list, of which only the pages near what is seen are held; pages scrolled past are no longer asked for.
import { wasAborted } from "./api.js";

const PAGE = 200;
const PAGES_HELD = 40;

/** Rows of a list. ``fetchPage(offset, limit, signal)`` answers ``{total, items, …}``; ``onChange()``: news. */
export class Rows {
  total = null;
  error = null;
  first = null;
  #fetchPage;
  #pages = new Map();
  #pending = new Map();

  constructor(fetchPage) {
    this.#fetchPage = fetchPage;
    this.onChange = () => {};
  }

  /** Returns a row, or undefined while it is not here. */
  at(index) {
    return this.#pages.get(Math.floor(index / PAGE))?.[index % PAGE];
  }

  /** Loads the rows from start to before stop, and gives up on others that have not come yet. */
  want(start, stop) {
    const last = this.total === null ? 0 : Math.max(0, this.total - 1);
    const from = Math.floor(Math.min(start, last) / PAGE);
    const to = Math.floor(Math.min(Math.max(start, stop - 1), last) / PAGE);
    for (const [page, control] of this.#pending) if (page < from || page > to) control.abort();
    for (let page = from; page <= to; page++) {
      if (this.#pages.has(page)) this.#touch(page);
      else if (!this.#pending.has(page) && this.error === null) this.#load(page);
    }
  }

  /** Returns where a row that satisfies a condition is, among those that are here; -1 for nowhere. */
  find(condition) {
    for (const [page, items] of this.#pages) {
      const found = items.findIndex(condition);
      if (found >= 0) return page * PAGE + found;
    }
    return -1;
  }

  retry() {
    this.error = null;
    this.want(0, 1);
    this.onChange();
  }

  close() {
    this.onChange = () => {};
    for (const control of this.#pending.values()) control.abort();
  }

  #touch(page) {
    const items = this.#pages.get(page);
    this.#pages.delete(page);
    this.#pages.set(page, items);
  }

  async #load(page) {
    const control = new AbortController();
    this.#pending.set(page, control);
    try {
      const answer = await this.#fetchPage(page * PAGE, PAGE, control.signal);
      if (control.signal.aborted) return;
      this.first ??= answer;
      this.total = answer.total;
      this.#pages.set(page, answer.items);
      if (this.#pages.size > PAGES_HELD) this.#pages.delete(this.#pages.keys().next().value);
    } catch (error) {
      if (wasAborted(error)) return;
      this.error = error;
    } finally {
      if (this.#pending.get(page) === control) this.#pending.delete(page);
    }
    this.onChange();
  }
}
