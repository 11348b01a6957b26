// A message's body as people read it: JSON on several lines, text, or bytes in hexadecimal.
import { shownJson } from "../format.js";

export const TEXT = (value) => (typeof value === "string" ? value : JSON.stringify(value));

// Returns kind, text, length (bytes that are here) and isCut.
// `shown`: bytes that were here before secrets were masked. `isHidden`: it is no text, and is therefore not here at all.
export function read(payload, encoding, size, shown, isHidden) {
  if (isHidden) return { length: size, isCut: false, kind: "Binary", text: `${size.toLocaleString("en")} bytes that are no text, in which no secrets can be masked. With --mask "" the dashboard shows them.` };
  const body = encoding === "base64" ? Uint8Array.from(atob(payload), (letter) => letter.charCodeAt(0)) : new TextEncoder().encode(payload);
  const length = shown ?? body.length;
  const isCut = length < size;
  const about = { length, isCut };
  let text;
  try {
    text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(body, { stream: isCut }); // the cut may be within a letter
  } catch {
    return { ...about, kind: "Binary", text: hex(body) };
  }
  if (text.includes("\0")) return { ...about, kind: "Binary", text: hex(body) };
  if (!isCut && isJson(text)) return { ...about, kind: "JSON", text: shownJson(pretty(text)) };
  return { ...about, kind: text ? "Text" : "Empty", text: shownJson(text) };
}

export function isJson(text) {
  try {
    return JSON.parse(text) !== undefined;
  } catch {
    return false;
  }
}

// Only spaces change: numbers that JavaScript can't hold, and equal keys, stay as they are.
const TOKENS = /"(?:[^"\\]|\\.)*"|[[\]{},:]|[^\s"[\]{},:]+/g;

export function pretty(text) {
  let out = "";
  let depth = 0;
  let before = "";
  for (const [token] of text.matchAll(TOKENS)) {
    const isEnd = token === "}" || token === "]";
    if (isEnd) depth -= 1;
    const isEmpty = isEnd && (before === "{" || before === "[");
    if (!isEmpty && (isEnd || before === "{" || before === "[" || before === ",")) out += `\n${"  ".repeat(Math.min(depth, 40))}`;
    out += token === ":" ? ": " : token;
    if (token === "{" || token === "[") depth += 1;
    before = token;
  }
  return out;
}

function hex(body) {
  const lines = [];
  for (let at = 0; at < body.length; at += 8) {
    const some = [...body.subarray(at, at + 8)];
    const digits = some.map((byte) => byte.toString(16).padStart(2, "0")).join(" ").padEnd(23);
    const letters = some.map((byte) => (byte > 0x1f && byte < 0x7f ? String.fromCharCode(byte) : ".")).join("");
    lines.push(`${at.toString(16).padStart(6, "0")}  ${digits}  ${letters}`);
  }
  return lines.join("\n");
}
