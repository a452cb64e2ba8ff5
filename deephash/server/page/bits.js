// Codes as bits: their distance, and where two of them differ, drawn.
import { svgElement } from "./elements.js";

/** Returns the bits of a code in hexadecimal, most significant first. */
export function bitsOf(hex, nBits) {
  const bits = new Uint8Array(nBits);
  for (let bit = 0; bit < nBits; bit++) {
    const digit = parseInt(hex[bit >> 2], 16);
    bits[bit] = (digit >> (3 - (bit & 3))) & 1;
  }
  return bits;
}

/** Returns the positions, from 0, at which two codes differ. */
export function differing(left, right, nBits) {
  const a = bitsOf(left, nBits);
  const b = bitsOf(right, nBits);
  return [...a.keys()].filter((bit) => a[bit] !== b[bit]);
}

/** Returns a small matrix of a code, row by row; bits where it differs from the other code stand out. */
export function drawBits(code, nBits, other = null) {
  const bits = bitsOf(code, nBits);
  const apart = new Set(other === null ? [] : differing(code, other, nBits));
  const columns = nBits <= 32 ? 8 : nBits <= 128 ? 16 : 32;
  const rows = Math.ceil(nBits / columns);
  const says =
    other === null
      ? `Code of ${nBits} bits`
      : apart.size === 0
        ? `The codes are equal in all ${nBits} bits`
        : `The codes differ in ${apart.size} of ${nBits} bits: ${[...apart].map((bit) => bit + 1).join(", ")}`;
  const cells = [...bits].map((bit, place) =>
    svgElement("rect", {
      x: (place % columns) + 0.09,
      y: Math.floor(place / columns) + 0.09,
      width: 0.82,
      height: 0.82,
      rx: 0.16,
      class: `bit ${bit ? "one" : "zero"}${apart.has(place) ? " apart" : ""}`,
    }),
  );
  return svgElement(
    "svg",
    { viewBox: `0 0 ${columns} ${rows}`, class: "bits", role: "img", "aria-label": says },
    ...cells,
  );
}
