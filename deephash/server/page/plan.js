// Decisions about copies, and the plan file that `deephash apply` carries out. Nothing is deleted from here.
import { differing } from "./bits.js";
import { isUnder } from "./format.js";

/** Returns all images of a set of copies, the proposed best one first. */
export const membersOf = (cluster) => [cluster.keep, ...cluster.drop];

export const isProtected = (item, folders) => folders.some((folder) => isUnder(item.path, folder));

export const isIdentical = (a, b) => a.content_hash === b.content_hash && a.n_bytes === b.n_bytes;

export function distanceBetween(a, b, nBits) {
  return isIdentical(a, b) ? 0 : differing(a.code, b.code, nBits).length;
}

/** Returns the one of a set that is best kept: the server's choice, or the first that lies in a protected folder. */
export function bestOf(cluster, folders) {
  return membersOf(cluster).find((item) => isProtected(item, folders)) ?? cluster.keep;
}

/** Returns why an image is the best of its set. */
export function reasonFor(best, cluster, folders) {
  if (isProtected(best, folders)) return "protected folder";
  const pixels = best.width * best.height;
  const rivals = membersOf(cluster).filter((item) => item !== best && item.width * item.height >= pixels);
  if (rivals.length === 0) return "most pixels";
  return rivals.every((item) => item.n_bytes < best.n_bytes) ? "largest file" : "oldest";
}

/**
 * Returns id -> "keep" or "drop" as proposed: the best copy stays, and what is protected, and what lies farther from
 * the best copy than the radius.
 */
export function propose(cluster, folders, { radius, nBits }) {
  const best = bestOf(cluster, folders);
  const picks = new Map();
  for (const item of membersOf(cluster)) {
    const near = distanceBetween(best, item, nBits) <= (radius ?? 0);
    // Without its hash nobody could tell later whether a file is still the one that was decided about.
    const stays = item === best || isProtected(item, folders) || !near || item.content_hash === "";
    picks.set(item.id, stays ? "keep" : "drop");
  }
  return picks;
}

const fileOf = (item) => ({
  path: item.path,
  path_hex: item.path_hex,
  content_hash: item.content_hash,
  n_bytes: item.n_bytes,
});

/** Returns ``{keep, drop}`` for each image to drop, with the nearest of those that are kept. */
export function pairsOf(cluster, picks, nBits) {
  const members = membersOf(cluster);
  const kept = members.filter((item) => picks.get(item.id) === "keep");
  return members
    .filter((item) => picks.get(item.id) === "drop")
    .map((item) => {
      const distances = kept.map((other) => distanceBetween(other, item, nBits));
      const distance = Math.min(...distances);
      const keep = kept[distances.indexOf(distance)];
      const kind = isIdentical(keep, item) ? "identical" : "near";
      return { keep: fileOf(keep), drop: { ...fileOf(item), distance, kind } };
    });
}

/**
 * Returns the plan of all decisions. A file is dropped once; none that is kept for another, or that lies in a protected
 * folder: those are left out and counted.
 */
export function planOf(index, pairs, folders) {
  const key = (file) => file.path_hex ?? file.path;
  const kept = new Set(pairs.map(({ keep }) => key(keep)));
  const dropped = new Set();
  const actions = new Map();
  let leftOut = 0;
  for (const { keep, drop } of pairs) {
    if (dropped.has(key(drop))) continue;
    if (kept.has(key(drop)) || isProtected(drop, folders)) {
      leftOut += 1;
      continue;
    }
    dropped.add(key(drop));
    if (!actions.has(key(keep))) actions.set(key(keep), { keep, drop: [] });
    actions.get(key(keep)).drop.push(drop);
  }
  const plan = { deephash_plan: 1, index, created: new Date().toISOString(), actions: [...actions.values()] };
  const drops = plan.actions.flatMap(({ drop }) => drop);
  return { plan, leftOut, nFiles: drops.length, nBytes: drops.reduce((sum, { n_bytes }) => sum + n_bytes, 0) };
}
