// Text that somebody else wrote: what would hide or turn around its letters is shown by its number.
import { html } from "../../static/html.js";

// Control characters but for white space, controls of direction (UAX #9), and letters of no width: what stands between them is not what a reader sees.
const HIDDEN = /([\u0000-\u0008\u000b\u000e-\u001f\u007f-\u009f\u00ad\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff]|[\u{e0000}-\u{e007f}])/u;

const code = (letter) => `U+${letter.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}`;

// Returns what htm draws: text, and a mark for each hidden letter. Letters of one text turn no other text around.
export function visible(text) {
  const parts = String(text ?? "").split(HIDDEN);
  return html`<bdi>${parts.map((part, index) =>
    index % 2 === 0 ? part : html`<span class="hidden-letter" title="a letter that is not shown">${code(part)}</span>`)}</bdi>`;
}

// The same as plain text, for attributes.
export const plain = (text) => String(text ?? "").split(HIDDEN).map((part, index) => (index % 2 === 0 ? part : `<${code(part)}>`)).join("");
