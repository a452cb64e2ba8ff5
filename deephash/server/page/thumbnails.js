// Thumbnails: a few at a time, those no longer wanted are given up, those seen lately are kept.
import * as api from "./api.js";

// A browser opens six connections to a server: two are left for searches and for the progress of jobs.
const AT_ONCE = 4;
const KEPT = 1500;
const SIZES = [64, 128, 256, 512, 1024];

const kept = new Map(); // "id size" -> object URL, the least recently used first
const waiting = new Set();
let running = 0;
export const numbers = { started: 0, cancelled: 0 };

/** Returns the size to ask for, to fill so many CSS pixels. */
export function sizeFor(pixels) {
  const wanted = pixels * Math.min(2, devicePixelRatio || 1);
  return SIZES.find((size) => size >= wanted * 0.9) ?? SIZES.at(-1);
}

/** Asks for a thumbnail; calls ``done(url, error)`` unless it is cancelled before. Returns what cancels it. */
export function request(id, size, done) {
  const key = `${id} ${size}`;
  if (kept.has(key)) {
    const url = kept.get(key);
    kept.delete(key);
    kept.set(key, url);
    done(url, null);
    return () => {};
  }
  const job = { id, size, key, done, control: new AbortController() };
  waiting.add(job);
  queueMicrotask(next);
  return () => {
    if (job.ended) return;
    job.ended = true;
    numbers.cancelled += 1;
    waiting.delete(job);
    job.control.abort();
  };
}

function next() {
  while (running < AT_ONCE && waiting.size > 0) {
    const job = waiting.values().next().value;
    waiting.delete(job);
    void load(job);
  }
}

async function load(job) {
  running += 1;
  numbers.started += 1;
  try {
    const blob = await api.thumbnail(job.id, job.size, { signal: job.control.signal });
    const url = URL.createObjectURL(blob);
    kept.set(job.key, url);
    while (kept.size > KEPT) {
      const [oldest, old] = kept.entries().next().value;
      kept.delete(oldest);
      URL.revokeObjectURL(old);
    }
    if (!job.ended) job.done(url, null);
  } catch (error) {
    if (!job.ended && !api.wasAborted(error)) job.done(null, error);
  } finally {
    job.ended = true;
    running -= 1;
    next();
  }
}

/** Has an image element show a thumbnail; what it was to show before is given up. */
export function showThumbnail(img, id, size, { onError = null } = {}) {
  img.cancelThumbnail?.();
  img.classList.remove("loaded", "broken");
  img.removeAttribute("src");
  img.cancelThumbnail = request(id, size, (url, error) => {
    if (url !== null) img.src = url;
    img.classList.add(url !== null ? "loaded" : "broken");
    if (error !== null) onError?.(error);
  });
}

/** Lets go of all that is kept: the files may have changed. */
export function forgetThumbnails() {
  for (const url of kept.values()) URL.revokeObjectURL(url);
  kept.clear();
}
