// One job: its state, how far it is, what came of it.
import { element } from "./elements.js";
import { count, counted, day } from "./format.js";

const SAYS = { queued: "Waiting", running: "Indexing", done: "Done", failed: "Failed", cancelled: "Cancelled" };

export class JobCard {
  constructor(cancel) {
    this.state = element("strong", {});
    this.what = element("span", { class: "quiet what" });
    this.bar = element("progress", { max: 1, value: 0 });
    this.numbers = element("span", { class: "numbers" });
    this.cancel = element("button", { class: "button", type: "button", onclick: cancel }, "Cancel");
    this.report = element("p", { class: "quiet" });
    this.skipped = element("details", { hidden: true });
    const head = element("div", { class: "job-head" }, this.state, this.what, this.numbers, this.cancel);
    this.root = element("li", { class: "job" }, head, this.bar, this.report, this.skipped);
  }

  draw(job) {
    const { done, total } = job.progress;
    const isOpen = job.state === "queued" || job.state === "running";
    this.root.dataset.state = job.state;
    this.state.textContent = SAYS[job.state];
    this.what.textContent = `${job.kind === "add" ? "uploads" : job.folders.join(", ")} · ${day(job.created)}`;
    this.bar.hidden = !isOpen;
    this.bar.setAttribute("aria-label", `Progress of ${this.what.textContent}`);
    if (total) this.bar.max = total;
    if (total) this.bar.value = done;
    else this.bar.removeAttribute("value");
    this.numbers.textContent = isOpen && total ? `${count(done)} of ${count(total)}` : "";
    this.cancel.hidden = !isOpen;
    this.report.textContent = job.error ?? (job.report ? reportOf(job.report) : "");
    this.report.hidden = this.report.textContent === "";
    this.#drawSkipped(job.report);
  }

  #drawSkipped(report) {
    const n = report?.n_skipped ?? 0;
    this.skipped.hidden = n === 0;
    if (n === 0 || this.skipped.childElementCount) return;
    const rows = report.skipped.map(({ path, reason }) => element("li", {}, element("code", {}, path), ` ${reason}`));
    const summary = element("summary", {}, `${counted(n, "file")} skipped`);
    this.skipped.append(summary, element("ul", {}, rows));
  }
}

function reportOf(report) {
  const parts = ["added", "updated", "moved", "copies", "removed", "vanished", "unchanged"]
    .filter((name) => report[name] > 0)
    .map((name) => `${count(report[name])} ${name}`);
  return `${parts.join(", ") || "Nothing new"}: ${counted(report.n_images, "image")} in ${report.seconds.toFixed(1)} s`;
}
