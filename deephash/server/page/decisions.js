// What was decided about copies, and which folders are protected: kept in this browser, for each index of its own.
let indexKey = "";
let decided = new Map(); // key of a set -> its pairs of files, kept and dropped
let folders = [];
let isStored = true;

/** Reads what was decided before. */
export function loadDecisions(stats) {
  indexKey = `${stats.index} ${stats.fingerprint} ${stats.created}`;
  decided = new Map(read("decided") ?? []);
  folders = read("protected") ?? [];
}

function read(what) {
  try {
    const value = JSON.parse(localStorage.getItem(`deephash-${what} ${indexKey}`));
    return Array.isArray(value) ? value : null;
  } catch {
    return null;
  }
}

function write(what, value) {
  try {
    localStorage.setItem(`deephash-${what} ${indexKey}`, JSON.stringify(value));
  } catch {
    isStored = false; // no room: kept until the page is closed
  }
}

export const keyOf = (cluster) =>
  [cluster.keep.id, ...cluster.drop.slice(0, 3).map(({ id }) => id), cluster.drop.length].join("-");

export const isDecided = (cluster) => decided.has(keyOf(cluster));

export const decidedPairs = (cluster) => decided.get(keyOf(cluster)) ?? [];

export function decide(clustersWithPairs) {
  for (const [cluster, pairs] of clustersWithPairs) decided.set(keyOf(cluster), pairs);
  write("decided", [...decided]);
  return isStored;
}

export function undecide(cluster) {
  decided.delete(keyOf(cluster));
  write("decided", [...decided]);
}

export function forgetDecisions() {
  decided.clear();
  write("decided", []);
}

export const numberDecided = () => decided.size;
export const allPairs = () => [...decided.values()].flat();

export const protectedFolders = () => folders;

export function setProtected(wanted) {
  folders = [...new Set(wanted)].sort();
  write("protected", folders);
}
