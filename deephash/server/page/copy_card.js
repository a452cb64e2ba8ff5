// One image of a set of copies: its picture, what is known of it, and whether it is kept.
import { element, icon } from "./elements.js";
import { bytes, count, date, fileName, folderOf } from "./format.js";
import { distanceBetween, isIdentical } from "./plan.js";
import { showThumbnail, sizeFor } from "./thumbnails.js";

const WIDTH = 420;

export class CopyCard {
  constructor(item, place, handlers) {
    this.item = item;
    this.folder = folderOf(item.path);
    const name = fileName(item.path);
    const img = element("img", { alt: "", decoding: "async" });
    showThumbnail(img, item.id, sizeFor(WIDTH), {
      onError: (error) => this.picture.append(element("span", { class: "stage-error" }, error.message)),
    });
    this.picture = element("button", { class: "copy-picture", type: "button", tabindex: "-1" }, img);
    this.picture.addEventListener("focus", () => handlers.select(place));
    this.picture.addEventListener("click", () => handlers.select(place));
    this.picture.addEventListener("dblclick", () => handlers.open(item));
    this.picture.addEventListener("keydown", (event) => {
      if (event.key !== " ") return;
      event.preventDefault();
      handlers.open(item);
    });
    this.badges = element("p", { class: "badges" });
    this.keep = this.#choice("Keep", () => handlers.pick(place, "keep"));
    this.drop = this.#choice("Drop", () => handlers.pick(place, "drop"));
    const choices = element(
      "div",
      { class: "choices", role: "group", "aria-label": `Decision about ${name}` },
      this.keep,
      this.drop,
    );
    const open = this.#small("expand", `Large view of ${name}`, () => handlers.open(item));
    this.shield = this.#small("shield", `Protect the folder ${this.folder}`, () => handlers.protect(this.folder));
    this.facts = element("dl", { class: "copy-facts" });
    const title = element("h3", { title: item.path }, name);
    const text = element(
      "div",
      { class: "copy-text" },
      title,
      element("p", { class: "folder" }, this.folder),
      this.facts,
    );
    this.root = element(
      "li",
      { class: "copy" },
      this.picture,
      this.badges,
      text,
      element("div", { class: "copy-acts" }, choices, open, this.shield),
    );
  }

  #choice(text, onclick) {
    return element("button", { class: "choice", type: "button", onclick }, text);
  }

  #small(name, label, onclick) {
    return element(
      "button",
      { class: "icon-button", type: "button", "aria-label": label, title: label, onclick },
      icon(name),
    );
  }

  get isCurrent() {
    return this.root.classList.contains("current");
  }

  setCurrent(is) {
    this.root.classList.toggle("current", is);
    this.picture.tabIndex = is ? 0 : -1;
  }

  focus() {
    this.picture.focus();
  }

  /** Draws what is decided; ``best`` is why it is the best copy, or null; ``reference`` the best copy. */
  draw({ pick, best, isProtected, reference, nBits }) {
    const { item } = this;
    const isKept = pick === "keep";
    this.root.classList.toggle("drop", !isKept);
    this.keep.setAttribute("aria-pressed", String(isKept));
    this.drop.setAttribute("aria-pressed", String(!isKept));
    this.drop.disabled = isProtected;
    this.shield.setAttribute("aria-pressed", String(isProtected));
    this.shield.disabled = isProtected;
    const badges = [
      best ? ["best", `Best copy: ${best}`] : null,
      isProtected && best !== "protected folder" ? ["safe", "Protected"] : null,
    ];
    this.badges.replaceChildren(
      ...badges.filter(Boolean).map(([kind, text]) => element("span", { class: `badge ${kind}` }, text)),
    );
    const isBest = item === reference;
    const apart = isBest
      ? null
      : isIdentical(item, reference)
        ? "same content"
        : `distance ${distanceBetween(item, reference, nBits)}`;
    const better = (mine, others) => (isBest || mine === others ? "" : mine > others ? "more" : "less");
    this.facts.replaceChildren(
      ...pair(
        "Pixels",
        `${count(item.width)} × ${count(item.height)}`,
        better(item.width * item.height, reference.width * reference.height),
      ),
      ...pair("Size", bytes(item.n_bytes), better(item.n_bytes, reference.n_bytes)),
      ...pair("Changed", date(item.mtime_ns), ""),
      ...(apart === null ? [] : pair("To the best", apart, "")),
    );
    const says = [fileName(item.path), isKept ? "kept" : "to be dropped", best ? `best copy: ${best}` : apart];
    if (isProtected) says.push("protected");
    this.picture.setAttribute("aria-label", says.filter(Boolean).join(", "));
  }
}

const pair = (term, value, kind) => [element("dt", {}, term), element("dd", { class: kind }, value)];
