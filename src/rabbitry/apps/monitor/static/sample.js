// What the page knows of a sample's fields. The JSON came over the wire: every field may be of any type, and every
// name may be one that objects have by themselves (`__proto__`). So names are never the keys of objects made here.
import { shown } from "../../static/format.js";

const KNOWN = new Set(
  ("timestamp hostname machine platform cpu cpu_percent cores net uplinks memory swap disk filesystems disks load " +
    "temperatures uptime processes container").split(" "),
);
const ROUNDING = 5; // percent points by which a share may miss 0 or 100, as in monitor/decode.py
const inOrder = new Intl.Collator("en", { numeric: true });

// The view of one sample: numbers or null, and lists of plain entries; nothing in it throws.
export function view(raw) {
  const data = parse(raw);
  const busy = scaled(own(data, "cpu"));
  const filesystems = spaces(own(data, "filesystems"));
  const disk = space(own(data, "disk"));
  return {
    platform: text(own(data, "platform")),
    cpu: busy ?? portion(own(data, "cpu_percent")),
    memory: space(own(data, "memory")),
    swap: space(own(data, "swap")),
    disk,
    fullest: fullest(disk, filesystems),
    filesystems,
    load: numbers(own(data, "load")),
    cores: numbers(own(data, "cores")).map(scaled).filter((core) => core !== null),
    net: uplinksFirst(pairs(own(data, "net"), "rx", "tx"), own(data, "uplinks")),
    disks: pairs(own(data, "disks"), "read", "write"),
    temperatures: entries(own(data, "temperatures"))
      .map(([name, value]) => [shown(name), number(value)])
      .filter(([, value]) => value !== null),
    uptime: number(own(data, "uptime")),
    processes: number(own(data, "processes")),
    container: container(own(data, "container")),
    others: entries(data)
      .filter(([name, value]) => !KNOWN.has(name) && ["number", "string", "boolean"].includes(typeof value))
      .map(([name, value]) => [shown(name), shown(String(value))]),
  };
}

// Whether a sample says nothing that the card has a place for.
export function isForeign(sample) {
  return sample.cpu === null && sample.memory === null && sample.disk === null && sample.net.length === 0;
}

function parse(raw) {
  try {
    return JSON.parse(raw);
  } catch {
    return null; // the raw text is shown all the same
  }
}

// A field that the object itself has, whatever its name is.
function own(value, name) {
  return value !== null && typeof value === "object" && Object.hasOwn(value, name) ? value[name] : undefined;
}

function number(value) {
  return typeof value === "number" && Number.isFinite(value) ? value : null;
}

// A percentage of something that can't be more than full; another number is none, whoever sends it.
function portion(value) {
  const percent = number(value);
  return percent !== null && percent >= -ROUNDING && percent <= 100 + ROUNDING ? Math.min(Math.max(percent, 0), 100) : null;
}

// The percentage that a fraction from 0 to 1 is.
const scaled = (fraction) => (number(fraction) === null ? null : portion(fraction * 100));

function text(value) {
  return typeof value === "string" ? shown(value) : null;
}

function numbers(value) {
  return Array.isArray(value) ? value.filter((item) => number(item) !== null) : [];
}

function entries(value) {
  return value === null || typeof value !== "object" || Array.isArray(value) ? [] : Object.entries(value);
}

// Bytes and a percentage that agree. Memory that is not available counts as used, and of a file system the blocks that
// are reserved for root count as not there: some programs leave them out of the bytes, but not of the percentage.
function space(value) {
  const [used, free, available] = ["used", "free", "available"].map((name) => number(own(value, name)));
  let [total, taken] = [number(own(value, "total")), used];
  if (total !== null && available !== null) taken = total - available;
  else if (used !== null && free !== null && used + free > 0) total = used + free;
  const computed = taken !== null && total > 0 ? (100 * taken) / total : null;
  const percent = portion(own(value, "percent")) ?? portion(computed);
  return percent === null ? null : { percent, used: taken, total };
}

function spaces(value) {
  return entries(value)
    .map(([name, of]) => ({ name: shown(name), space: space(of) }))
    .filter((one) => one.space !== null)
    .sort((a, b) => b.space.percent - a.space.percent || inOrder.compare(a.name, b.name));
}

// The file system that is fullest, which `disk` (of the one at /) need not be.
function fullest(disk, filesystems) {
  const [first] = filesystems; // they are in that order
  if (first && (disk === null || first.space.percent > disk.percent)) return { name: first.name, percent: first.space.percent };
  return disk === null ? null : { name: "/", percent: disk.percent };
}

function pairs(value, first, second) {
  return entries(value)
    .map(([name, of]) => ({ name, values: [number(own(of, first)), number(own(of, second))] }))
    .filter(({ values }) => values.some((one) => one !== null))
    .sort((a, b) => inOrder.compare(a.name, b.name));
}

function uplinksFirst(rows, uplinks) {
  const named = new Set(Array.isArray(uplinks) ? uplinks : []);
  return [...rows.filter(({ name }) => named.has(name)), ...rows.filter(({ name }) => !named.has(name))];
}

function container(value) {
  const [memory, cpus, cpu] = [space(own(value, "memory")), number(own(value, "cpus")), number(own(value, "cpu"))];
  return memory === null && cpus === null ? null : { memory, cpus, cpu: cpu === null ? null : cpu * 100 };
}
