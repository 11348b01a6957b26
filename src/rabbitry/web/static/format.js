// Numbers and times as people read them. What is no finite number shows as a dash.

export const DASH = "–";

const BYTE_UNITS = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
const RATE_UNITS = ["B/s", "kB/s", "MB/s", "GB/s", "TB/s", "PB/s"];

export function percent(value) {
  if (!Number.isFinite(value)) return DASH;
  return `${value.toFixed(Math.abs(value) < 9.95 ? 1 : 0)} %`;
}

export function bytes(value) {
  return scaled(value, 1024, BYTE_UNITS);
}

export function rate(value) {
  return scaled(value, 1000, RATE_UNITS);
}

function scaled(value, step, units) {
  if (!Number.isFinite(value)) return DASH;
  let unit = 0;
  while (Math.abs(value) >= step && unit < units.length - 1) {
    value /= step;
    unit += 1;
  }
  const digits = unit === 0 || Math.abs(value) >= 99.5 ? 0 : 1;
  return `${value.toFixed(digits)} ${units[unit]}`;
}

export function duration(seconds) {
  if (!Number.isFinite(seconds) || seconds < 0) return DASH;
  const whole = Math.floor(seconds);
  const [days, hours, minutes] = [Math.floor(whole / 86400), Math.floor(whole / 3600) % 24, Math.floor(whole / 60) % 60];
  if (days) return `${days} d ${hours} h`;
  if (hours) return `${hours} h ${minutes} min`;
  if (minutes) return `${minutes} min`;
  return `${whole} s`;
}

export function clock(unixSeconds) {
  return new Date(unixSeconds * 1000).toLocaleTimeString();
}

export function count(number, one, many) {
  return `${number.toLocaleString("en")} ${number === 1 ? one : many}`;
}

// Text from the wire with what a reader can't see, or what turns other text around, written out as JSON would.
const HIDDEN = /[\p{Cc}\p{Cf}\p{Co}\p{Cs}\p{Zl}\p{Zp}]/gu;
const units = (letter) => letter.split("").map((unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, "0")}`).join("");

export function shown(text) {
  return text.replace(HIDDEN, units);
}

// The same for JSON, whose lines stay lines.
export function shownJson(text) {
  return text.replace(HIDDEN, (letter) => ("\n\r\t".includes(letter) ? letter : units(letter)));
}

// A point in time, given in ISO 8601, in the reader's zone; another text as it is.
export function time(text) {
  const at = new Date(text);
  return text === "" ? "at an unknown time" : Number.isNaN(at.getTime()) ? shown(text) : at.toLocaleString();
}
