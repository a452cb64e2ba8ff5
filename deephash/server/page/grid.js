// The endless grid: only the lines in sight exist, and are used again for others as it scrolls.
import { element } from "./elements.js";
import { Lines } from "./lines.js";
import { Tile } from "./tile.js";
import { sizeFor } from "./thumbnails.js";

const GAP = 6;
const HEADING = 44;
// Browsers lay out no more than some 16 million pixels: beyond this, one pixel scrolled stands for more of the list.
const TALLEST = 8_000_000;
// Faster than so many heights of the window in a second, nothing is asked for until it slows down.
const FAST = 6;
const SETTLE_MS = 90;

/** A grid in a scroller. ``handlers``: ``search(item, place)``, ``open(…)``, ``add(…)``, ``scrolled(top)``. */
export class Grid {
  #sections = [];
  #lines = new Lines([], { columns: 1, tile: 1, gap: GAP, heading: HEADING });
  #shown = new Map(); // "section row" -> line in the page
  #spare = [];
  #active = { section: 0, index: 0 };
  #last = { top: 0, time: 0 };
  #frame = 0;
  #settling = 0;
  #fast = false;

  constructor(scroller, handlers) {
    this.scroller = scroller;
    this.handlers = handlers;
    this.layer = element("div", { class: "layer", role: "presentation" });
    this.canvas = element(
      "div",
      { class: "grid", role: "grid", "aria-label": "Images", "aria-readonly": "true" },
      this.layer,
    );
    this.message = element("div", { class: "message", hidden: true });
    scroller.append(this.message, this.canvas);
    scroller.addEventListener("scroll", () => this.#scrolled(), { passive: true });
    this.canvas.addEventListener("click", (event) => this.#clicked(event));
    this.canvas.addEventListener("keydown", (event) => this.#pressed(event));
    this.canvas.addEventListener("focusin", (event) => this.#focused(event));
    new ResizeObserver(() => this.#resized()).observe(scroller);
  }

  /** Shows sections, ``{rows, heading}`` each, from a height on. */
  show(sections, { scroll = 0 } = {}) {
    for (const { rows } of this.#sections) rows.close();
    this.#sections = sections;
    this.#active = { section: 0, index: 0 };
    this.#wantedScroll = scroll;
    // The tile that has the focus is about to stand for something else: the keyboard goes on at the list itself.
    if (this.canvas.contains(document.activeElement)) this.scroller.focus({ preventScroll: true });
    for (const line of this.#shown.values()) this.#recycle(line);
    this.#shown.clear();
    for (const { rows } of sections) {
      rows.onChange = () => this.#changed();
      rows.want(0, 1);
    }
    this.#changed();
  }

  #wantedScroll = 0;

  itemAt({ section, index }) {
    return this.#sections[section]?.rows.at(index);
  }

  /** Returns the place before or after another, null at the ends. */
  neighbour(place, by) {
    const found = this.#lines.step(place.section, place.index, by);
    return found.section === place.section && found.index === place.index ? null : found;
  }

  placeOf(id, section) {
    const index = this.#sections[section]?.rows.find((item) => item.id === id) ?? -1;
    return index < 0 ? null : { section, index };
  }

  /** Makes sure that an image will be there. */
  want({ section, index }) {
    this.#sections[section]?.rows.want(index, index + 1);
  }

  focus(place = this.#active) {
    this.#active = place;
    this.#reveal(place);
    this.#draw();
    this.#tileAt(place)?.main.focus({ preventScroll: true });
  }

  get focusedPlace() {
    return this.#active;
  }

  // -- what is to be seen --

  #changed() {
    const failed = this.#sections.find(({ rows }) => rows.error !== null && rows.total === null);
    const isEmpty = this.#sections.every(({ rows }) => rows.total === 0);
    const isComing = this.#sections.some(({ rows }) => rows.total === null && rows.error === null);
    this.canvas.setAttribute("aria-busy", String(isComing));
    this.canvas.hidden = Boolean(failed) || isEmpty;
    this.message.hidden = !this.canvas.hidden;
    if (failed) this.handlers.failed(this.message, failed.rows.error, () => failed.rows.retry());
    else if (isEmpty) this.handlers.empty(this.message);
    this.handlers.changed(this.#sections);
    this.#resized();
  }

  #resized() {
    const style = getComputedStyle(this.scroller);
    const width = this.scroller.clientWidth - parseFloat(style.paddingLeft) - parseFloat(style.paddingRight);
    if (width <= 0) return;
    const target = Number(style.getPropertyValue("--tile")) || 160;
    const columns = Math.max(2, Math.round((width + GAP) / (target + GAP)));
    const tile = (width - (columns - 1) * GAP) / columns;
    const filler = columns * Math.ceil(this.scroller.clientHeight / (tile + GAP));
    const anchor = this.#anchor(columns);
    this.#lines = new Lines(
      this.#sections.map(({ rows, heading }) => ({ n: rows.total ?? filler, hasHeading: Boolean(heading) })),
      { columns, tile, gap: GAP, heading: HEADING },
    );
    this.tileSize = tile;
    const height = Math.min(this.#lines.height, TALLEST);
    this.canvas.style.height = `${height}px`;
    this.canvas.style.setProperty("--columns", columns);
    this.canvas.style.setProperty("--gap", `${GAP}px`);
    this.canvas.style.setProperty("--size", `${tile}px`);
    this.canvas.setAttribute("aria-rowcount", this.#lines.count);
    this.canvas.setAttribute("aria-colcount", columns);
    if (anchor !== null) this.#scrollTo(this.#lines.topOf(anchor.section, anchor.index));
    if (this.#wantedScroll && this.#sections.every(({ rows }) => rows.total !== null)) {
      this.scroller.scrollTop = this.#wantedScroll;
      this.#wantedScroll = 0;
    }
    this.#draw();
    this.#sortLines();
  }

  /** Returns the tile at the top, where the number of columns is about to change. */
  #anchor(columns) {
    if (columns === this.#lines.columns || this.scroller.scrollTop === 0) return null;
    const line = this.#lines.between(this.#top(), this.#top() + this.scroller.clientHeight).find(({ row }) => row >= 0);
    return line ? { section: line.section, index: line.row * this.#lines.columns } : null;
  }

  // -- scrolling --

  /** How many pixels of the list one pixel scrolled stands for. */
  #scale() {
    const view = this.scroller.clientHeight;
    const height = Math.min(this.#lines.height, TALLEST);
    return this.#lines.height > TALLEST ? (this.#lines.height - view) / (height - view) : 1;
  }

  #top() {
    return this.scroller.scrollTop * this.#scale();
  }

  #scrollTo(top) {
    this.scroller.scrollTop = top / this.#scale();
  }

  #reveal({ section, index }) {
    const top = this.#lines.topOf(section, index);
    const view = this.scroller.clientHeight;
    if (top < this.#top()) this.#scrollTo(top - HEADING * (index < this.#lines.columns ? 1 : 0));
    else if (top + this.#lines.pitch > this.#top() + view) this.#scrollTo(top + this.#lines.pitch - view + GAP);
  }

  #scrolled() {
    const now = performance.now();
    const top = this.#top();
    const speed = Math.abs(top - this.#last.top) / Math.max(1, now - this.#last.time);
    this.#fast = speed * 1000 > FAST * this.scroller.clientHeight && now - this.#last.time < 200;
    this.#last = { top, time: now };
    clearTimeout(this.#settling);
    this.#settling = setTimeout(() => {
      this.#fast = false;
      this.#draw();
      this.#sortLines();
      this.handlers.scrolled(this.scroller.scrollTop);
    }, SETTLE_MS);
    this.#frame ||= requestAnimationFrame(() => this.#draw());
  }

  // -- drawing --

  #draw() {
    cancelAnimationFrame(this.#frame);
    this.#frame = 0;
    const view = this.scroller.clientHeight;
    if (this.canvas.hidden || view === 0) return;
    const top = this.#top();
    const lines = this.#lines.between(top - view * 0.35, top + view * 1.35);
    const wanted = new Map(lines.map((line) => [`${line.section} ${line.row}`, line]));
    for (const [key, line] of this.#shown) {
      // What has the focus stays, or the keyboard would be lost.
      if (wanted.has(key) || (this.#exists(key) && line.contains(document.activeElement))) continue;
      this.#shown.delete(key);
      this.#recycle(line);
    }
    if (!this.#fast) this.#wantRows(lines);
    this.layer.style.transform = `translateY(${this.scroller.scrollTop - top}px)`;
    for (const [key, line] of wanted) this.#drawLine(key, line);
  }

  #exists(key) {
    const [section, row] = key.split(" ").map(Number);
    return row < (this.#lines.sections[section]?.rows ?? 0);
  }

  #wantRows(lines) {
    this.#sections.forEach(({ rows }, section) => {
      const own = lines.filter((line) => line.section === section && line.row >= 0);
      if (own.length) rows.want(own[0].row * this.#lines.columns, (own.at(-1).row + 1) * this.#lines.columns);
    });
  }

  #drawLine(key, { section, row, y, number }) {
    let line = this.#shown.get(key);
    if (!line) {
      line = this.#spare.pop() ?? element("div", { class: "line", role: "row" });
      this.#shown.set(key, line);
      if (!line.isConnected) this.layer.append(line);
      line.hidden = false;
    }
    line.setAttribute("aria-rowindex", number);
    line.style.transform = `translateY(${y}px)`;
    line.classList.toggle("heading", row < 0);
    if (row < 0) this.#drawHeading(line, section);
    else this.#drawTiles(line, section, row);
  }

  #drawHeading(line, section) {
    const { heading, rows } = this.#sections[section];
    line.tiles = null;
    const text = this.handlers.heading(rows);
    heading.lastChild.textContent = text;
    const cell = element(
      "div",
      { class: "heading-cell", role: "gridcell", "aria-colspan": this.#lines.columns },
      heading,
    );
    if (line.firstChild?.firstChild !== heading) line.replaceChildren(cell);
  }

  #drawTiles(line, section, row) {
    const { columns } = this.#lines;
    const { rows } = this.#sections[section];
    const n = this.#lines.sections[section].n;
    line.tiles ??= (line.replaceChildren(), []);
    while (line.tiles.length < columns) {
      const tile = new Tile();
      tile.root.setAttribute("aria-colindex", line.tiles.length + 1);
      line.tiles.push(tile);
      line.append(tile.root);
    }
    line.tiles.forEach((tile, column) => {
      const index = row * columns + column;
      const there = column < columns && index < n;
      const size = sizeFor(this.tileSize);
      tile.show(there ? { section, index } : null, there ? rows.at(index) : null, { size, load: !this.#fast });
      const isActive = there && section === this.#active.section && index === this.#active.index;
      tile.main.tabIndex = isActive ? 0 : -1;
    });
  }

  #recycle(line) {
    line.hidden = true;
    for (const tile of line.tiles ?? []) tile.show(null, null, { size: 0, load: false });
    this.#spare.push(line);
  }

  /** Puts the lines in the order in which they are read; what has the focus is not moved, or would lose it. */
  #sortLines() {
    const lines = [...this.#shown.values()].sort(
      (a, b) => a.getAttribute("aria-rowindex") - b.getAttribute("aria-rowindex"),
    );
    const present = [...this.layer.children].filter((line) => !line.hidden);
    if (lines.every((line, place) => line === present[place])) return;
    const focused = lines.findIndex((line) => line.contains(document.activeElement));
    lines.forEach((line, place) => {
      if (place < focused) this.layer.insertBefore(line, lines[focused]);
      else if (place > focused) this.layer.append(line);
    });
  }

  // -- hands --

  #tileAt(place) {
    const line = this.#shown.get(`${place.section} ${Math.floor(place.index / this.#lines.columns)}`);
    return line?.tiles?.[place.index % this.#lines.columns] ?? null;
  }

  #clicked(event) {
    const button = event.target.closest("button[data-act]");
    const tile = button?.closest(".tile")?.tile;
    if (!tile?.item) return;
    const act = event.ctrlKey || event.metaKey || event.shiftKey ? "add" : button.dataset.act;
    this.handlers[act](tile.item, tile.place);
  }

  #focused(event) {
    const tile = event.target.closest(".tile")?.tile;
    if (!tile?.place) return;
    const before = this.#tileAt(this.#active);
    if (before) before.main.tabIndex = -1;
    this.#active = tile.place;
    tile.main.tabIndex = 0;
  }

  #pressed(event) {
    const tile = event.target.closest(".tile")?.tile;
    if (!tile?.place || event.altKey || event.ctrlKey || event.metaKey) return;
    const { columns } = this.#lines;
    const lines = Math.max(1, Math.floor(this.scroller.clientHeight / this.#lines.pitch)) * columns;
    const { section, index } = tile.place;
    const inRow = index % columns;
    const steps = {
      ArrowRight: 1,
      ArrowLeft: -1,
      ArrowDown: columns,
      ArrowUp: -columns,
      PageDown: lines,
      PageUp: -lines,
      Home: -inRow,
      End: columns - 1 - inRow,
    };
    if (event.key in steps) {
      event.preventDefault();
      this.focus(this.#lines.step(section, index, steps[event.key]));
    } else if (event.target === tile.main && tile.item && (event.key === " " || event.key === "+")) {
      event.preventDefault();
      this.handlers[event.key === " " ? "open" : "add"](tile.item, tile.place);
    }
  }
}
