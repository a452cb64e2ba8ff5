// Small pictures of what was dropped, pasted or chosen, by code: the files stay here, the address has their codes only.
const EDGE = 96;
const KEY = "deephash-preview ";
const files = new Map(); // code -> File

/** Keeps a file under its code, and a small picture of it for this tab. */
export async function keepPreview(code, file) {
  files.set(code, file);
  try {
    const bitmap = await createImageBitmap(file, { resizeWidth: EDGE * 2, resizeQuality: "medium" });
    const side = Math.min(bitmap.width, bitmap.height);
    const canvas = document.createElement("canvas");
    canvas.width = canvas.height = EDGE;
    const left = (bitmap.width - side) / 2;
    const top = (bitmap.height - side) / 2;
    canvas.getContext("2d").drawImage(bitmap, left, top, side, side, 0, 0, EDGE, EDGE);
    bitmap.close();
    sessionStorage.setItem(KEY + code, canvas.toDataURL("image/jpeg", 0.8));
  } catch {
    // Of a kind that only the server can read, or no room: its code is drawn instead.
  }
}

export const fileOf = (code) => files.get(code) ?? null;

export function previewOf(code) {
  try {
    return sessionStorage.getItem(KEY + code);
  } catch {
    return null;
  }
}
