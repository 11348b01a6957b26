// What the page knows of a sample's fields. The JSON came over the wire: every field may be of any type.

const LIST_LIMIT = 64;
const KNOWN = new Set(
  ("timestamp hostname platform cpu cpu_percent cores net memory swap disk disks load temperatures uptime " +
    "processes").split(" "),
);

// The view of one sample: numbers or null, and lists of plain entries; nothing in it throws.
export function view(raw) {
  const data = parse(raw);
  const busy = number(data.cpu);
  return {
    platform: text(data.platform),
    cpu: busy === null ? number(data.cpu_percent) : busy * 100,
    memory: space(data.memory),
    swap: space(data.swap),
    disk: space(data.disk),
    load: numbers(data.load),
    cores: numbers(data.cores).map((core) => core * 100),
    net: pairs(data.net, "rx", "tx"),
    disks: pairs(data.disks, "read", "write"),
    temperatures: entries(data.temperatures)
      .map(([name, value]) => [name, number(value)])
      .filter(([, value]) => value !== null),
    uptime: number(data.uptime),
    processes: number(data.processes),
    others: entries(data)
      .filter(([name, value]) => !KNOWN.has(name) && ["number", "string", "boolean"].includes(typeof value))
      .map(([name, value]) => [name, String(value)]),
  };
}

// Whether a sample says nothing that the card has a place for.
export function isForeign(sample) {
  return sample.cpu === null && sample.memory === null && sample.disk === null && sample.net.length === 0;
}

function parse(raw) {
  try {
    const data = JSON.parse(raw);
    return data !== null && typeof data === "object" && !Array.isArray(data) ? data : {};
  } catch {
    return {}; // the raw text is shown all the same
  }
}

function number(value) {
  return typeof value === "number" && Number.isFinite(value) ? value : null;
}

function text(value) {
  return typeof value === "string" ? value : null;
}

function numbers(value) {
  if (!Array.isArray(value)) return [];
  return value.slice(0, 1024).filter((item) => number(item) !== null);
}

function entries(value) {
  if (value === null || typeof value !== "object" || Array.isArray(value)) return [];
  return Object.entries(value).slice(0, LIST_LIMIT);
}

function space(value) {
  const of = Object.fromEntries(entries(value));
  const percent = number(of.percent);
  return percent === null ? null : { percent, used: number(of.used), total: number(of.total) };
}

function pairs(value, first, second) {
  return entries(value)
    .map(([name, of]) => {
      const fields = Object.fromEntries(entries(of));
      return { name, values: [number(fields[first]), number(fields[second])] };
    })
    .filter(({ values }) => values.some((one) => one !== null));
}
