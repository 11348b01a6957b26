// Text from other people: characters that would hide or reorder its letters are shown by their code points.
import { html } from "../../static/html.js";

// Control characters except white space, direction controls (UAX #9), and zero-width characters, which make text look like something else.
const HIDDEN = /([\u0000-\u0008\u000b\u000e-\u001f\u007f-\u009f\u00ad\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff]|[\u{e0000}-\u{e007f}])/u;

const code = (letter) => `U+${letter.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}`;

// Returns what htm draws: text, and a mark for each hidden character. One text can't change the direction of another.
export function visible(text) {
  const parts = String(text ?? "").split(HIDDEN);
  return html`<bdi>${parts.map((part, index) =>
    index % 2 === 0 ? part : html`<span class="hidden-letter" title="a hidden character">${code(part)}</span>`)}</bdi>`;
}

// The place of a comment on a line.
export const placeOf = ({ file, cell, line }) => [...(file === null ? [] : [file]), ...(cell === null ? [] : [`cell ${cell}`]), `line ${line}`].join(", ");

// The same as `visible` as plain text, for attributes.
export const plain = (text) => String(text ?? "").split(HIDDEN).map((part, index) => (index % 2 === 0 ? part : `<${code(part)}>`)).join("");
