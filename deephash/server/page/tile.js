// One tile of the grid: a picture to search by, its distance, and two small buttons. Tiles are used again and again.
import { element, icon } from "./elements.js";
import { fileName } from "./format.js";
import { showThumbnail } from "./thumbnails.js";

export class Tile {
  constructor() {
    this.img = element("img", { alt: "", decoding: "async", draggable: "false" });
    this.distance = element("span", { class: "distance" });
    this.name = element("span", { class: "name" });
    this.main = element("button", { class: "picture", type: "button", tabindex: "-1", "data-act": "search" });
    this.main.append(this.img, this.name, this.distance);
    this.open = element("button", { class: "act", type: "button", tabindex: "-1", "data-act": "open" }, icon("expand"));
    this.add = element("button", { class: "act", type: "button", tabindex: "-1", "data-act": "add" }, icon("plus"));
    const acts = element("span", { class: "acts" }, this.open, this.add);
    this.root = element("div", { class: "tile", role: "gridcell" }, this.main, acts);
    this.root.tile = this;
    this.#fill(null, null);
  }

  /** Shows an image, or nothing yet; its thumbnail only where it is asked for. */
  show(place, item, { size, load }) {
    this.place = place;
    this.root.hidden = place === null;
    const id = place === null ? null : (item?.id ?? null);
    if (id !== this.id || item?.distance !== this.item?.distance) this.#fill(item ?? null, id);
    this.item = item ?? null;
    if (load && id !== null && !this.asked) {
      this.asked = true;
      showThumbnail(this.img, id, size, { onError: (error) => this.#tellError(error) });
    }
  }

  #fill(item, id) {
    if (id !== this.id) {
      this.img.cancelThumbnail?.();
      this.img.removeAttribute("src");
      this.img.classList.remove("loaded", "broken");
      this.asked = false;
      this.id = id;
    }
    this.root.classList.toggle("waiting", id === null);
    // Not disabled: the keyboard must be able to walk over what is still to come.
    this.main.setAttribute("aria-disabled", String(id === null));
    this.open.disabled = this.add.disabled = id === null;
    this.main.removeAttribute("title");
    if (id === null) {
      this.main.setAttribute("aria-label", "Loading");
      return;
    }
    const name = fileName(item.path);
    const apart = item.distance === undefined ? "" : `, distance ${item.distance}`;
    this.name.textContent = name;
    this.distance.textContent = item.distance ?? "";
    this.main.setAttribute("aria-label", `${name}${item.label ? `, ${item.label}` : ""}${apart}`);
    this.main.setAttribute("aria-description", "Enter searches by it, Space opens it, plus adds it to the query");
    this.main.title = item.path;
    this.open.setAttribute("aria-label", `Large view of ${name}`);
    this.open.title = "Large view (Space)";
    this.add.setAttribute("aria-label", `Add ${name} to the query`);
    this.add.title = "Add to the query (+)";
  }

  #tellError(error) {
    this.main.title = `${this.item?.path ?? ""}\n${error.message}`;
    this.main.setAttribute("aria-label", `${this.main.getAttribute("aria-label")}. ${error.message}`);
  }
}
