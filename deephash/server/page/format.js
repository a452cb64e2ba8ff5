// Numbers, sizes, times and paths as people read them.

const NUMBER = new Intl.NumberFormat("en");
const DATE = new Intl.DateTimeFormat("en", { dateStyle: "medium", timeStyle: "short" });

export const count = (n) => NUMBER.format(n);

/** "1 image", "2,224 images". */
export const counted = (n, one, many = `${one}s`) => `${count(n)} ${n === 1 ? one : many}`;

export function bytes(n) {
  if (n < 1000) return `${n} B`;
  const power = Math.min(4, Math.floor(Math.log10(n) / 3));
  const value = n / 1000 ** power;
  return `${value.toFixed(value < 10 ? 1 : 0)} ${["B", "kB", "MB", "GB", "TB"][power]}`;
}

export const date = (ns) => DATE.format(new Date(ns / 1e6));
export const day = (iso) => DATE.format(new Date(iso));

const slash = (path) => Math.max(path.lastIndexOf("/"), path.lastIndexOf("\\"));
export const fileName = (path) => path.slice(slash(path) + 1);
export const folderOf = (path) => path.slice(0, Math.max(0, slash(path))) || "/";

/** Returns whether a path lies in a folder or is it. */
export function isUnder(path, folder) {
  const top = folder.replace(/[/\\]+$/, "");
  return path === top || path.startsWith(`${top}/`) || path.startsWith(`${top}\\`);
}
