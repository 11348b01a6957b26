// Where the things of the topology stand: four columns of slots. A thing keeps its slot for as long as it is shown, so
// that a new one moves no other.

export const KINDS = ["publisher", "exchange", "queue", "consumer"];
export const MOST = 150; // things that are drawn one by one; more are grouped
export const STEP = 46; // pixels from slot to slot
export const HEIGHT = 32;
const TOP = 44; // for the titles of the columns

const byName = new Intl.Collator("en", { numeric: true });
const LETTERS = { publisher: "p", exchange: "x", queue: "q", consumer: "c" };

// What is drawn: nodes and edges by their keys, where there are many with groups in place of their members.
// `opened` are the keys of groups that are shown as their members.
export function grouped(nodes, edges, opened) {
  if (nodes.size <= MOST) return { nodes, edges };
  const groups = new Map();
  for (const [key, node] of nodes) {
    const group = `g:${LETTERS[node.kind]}:${node.app}`;
    if (!groups.has(group)) groups.set(group, []);
    groups.get(group).push([key, node]);
  }
  const drawn = new Map();
  const standsFor = new Map();
  for (const [group, members] of groups) {
    const isOpen = members.length === 1 || opened.has(group);
    for (const [key, node] of members) {
      standsFor.set(key, isOpen ? key : group);
      if (isOpen) drawn.set(key, node);
    }
    if (!isOpen) drawn.set(group, sum(members.map(([, node]) => node)));
  }
  const joined = new Map();
  for (const edge of edges.values()) {
    const [from, to] = [standsFor.get(edge.from), standsFor.get(edge.to)];
    if (from === undefined || to === undefined || from === to) continue;
    const key = `e:${from}>${to}`;
    const known = joined.get(key);
    const rate = known ? (known.rate === null || edge.rate === null ? null : known.rate + edge.rate) : edge.rate;
    joined.set(key, { from, to, rate, keys: known ? [] : edge.keys });
  }
  return { nodes: drawn, edges: joined };
}

function sum(members) {
  const [first] = members;
  const total = (name) => (first[name] === null ? null : members.reduce((all, node) => all + (node[name] ?? 0), 0));
  const at = Math.max(...members.map((node) => node.at ?? 0)) || null;
  return {
    ...first, name: first.app, host: "", members: members.length, at,
    rate: total("rate"), out: total("out"), ready: total("ready"), unacked: total("unacked"), consumers: total("consumers"),
  };
}

// The slots that are taken: kind → key of each slot, or null.
export class Slots {
  constructor() {
    this.columns = new Map(KINDS.map((kind) => [kind, []]));
    this.places = new Map(); // key → [kind, slot]
  }

  // Give each thing a slot: known ones theirs, new ones a free one, in an order that lets few edges cross.
  fit(nodes, edges) {
    for (const [key, [kind, slot]] of this.places) {
      if (nodes.has(key)) continue;
      this.places.delete(key);
      this.columns.get(kind)[slot] = null;
    }
    if ([...nodes.keys()].every((key) => this.places.has(key))) return this.trim();
    const heights = neighbours(nodes, edges);
    for (const kind of KINDS) {
      const column = this.columns.get(kind);
      const fresh = [...nodes].filter(([key, node]) => node.kind === kind && !this.places.has(key)).map(([key, node]) => {
        const at = heights(key, this.places);
        return { key, at, host: node.host, active: node.at !== null || node.ready > 0, name: node.name };
      });
      // Machines stand together; what moves stands first.
      fresh.sort((a, b) => b.active - a.active || byName.compare(a.host, b.host) || a.at - b.at || byName.compare(a.name, b.name));
      let free = 0;
      for (const { key } of fresh) {
        while (column[free] != null) free += 1;
        column[free] = key;
        this.places.set(key, [kind, free]);
      }
    }
    this.trim();
  }

  // Drop the free slots at the columns' ends.
  trim() {
    for (const column of this.columns.values()) while (column.length && column.at(-1) == null) column.pop();
  }

  get rows() {
    return Math.max(1, ...[...this.columns.values()].map((column) => column.length));
  }
}

// Returns a function: the mean slot of what a thing is connected with, as far as that has one.
function neighbours(nodes, edges) {
  const others = new Map();
  for (const { from, to } of edges.values()) {
    for (const [one, other] of [[from, to], [to, from]]) {
      if (!others.has(one)) others.set(one, []);
      others.get(one).push(other);
    }
  }
  return (key, places) => {
    const slots = (others.get(key) ?? []).map((other) => places.get(other)?.[1]).filter((slot) => slot !== undefined);
    return slots.length ? slots.reduce((a, b) => a + b, 0) / slots.length : Infinity;
  };
}

// Pixels for a picture of `width`: {width, height, box, boxes: Map(key → {x, y, width}), curves: Map(key → curve)}.
// A curve has the ends {x1, y1, x2, y2} of a cubic Bézier curve, whose inner points are at the heights of its ends.
export function measure(slots, edges, width) {
  const wide = Math.max(860, width); // narrower ones scroll sideways, so that names can be read
  const box = Math.floor(Math.min(230, wide * 0.19));
  const gap = (wide - 4 * box - 4) / 3;
  const boxes = new Map();
  for (const [key, [kind, slot]] of slots.places) {
    boxes.set(key, { x: 2 + KINDS.indexOf(kind) * (box + gap), y: TOP + slot * STEP, width: box });
  }
  const curves = new Map();
  for (const [key, edge] of edges) {
    const [from, to] = [boxes.get(edge.from), boxes.get(edge.to)];
    if (from && to) curves.set(key, curve(from, to));
  }
  return { width: wide, height: TOP + slots.rows * STEP + 4, box, gap, boxes, curves };
}

function curve(from, to) {
  const [y1, y2] = [from.y + HEIGHT / 2, to.y + HEIGHT / 2];
  if (from.x === to.x) {
    // Exchange to exchange: around the right side.
    const x = from.x + from.width;
    return { x1: x, y1, c: x + 40, x2: x, y2 };
  }
  const [x1, x2] = [from.x + from.width, to.x];
  return { x1, y1, c: (x1 + x2) / 2, x2, y2 };
}

const round = (value) => Math.round(value * 10) / 10;

export const path = ({ x1, y1, c, x2, y2 }) => `M${round(x1)} ${y1}C${round(c)} ${y1} ${round(c)} ${y2} ${round(x2)} ${y2}`;

// Returns the part of a curve that lies between two heights, as a path. A picture may be a hundred screens high.
export function part(curve, from, until) {
  const { x1, y1, c, x2, y2 } = curve;
  if (Math.min(y1, y2) >= from && Math.max(y1, y2) <= until) return path(curve);
  const [first, last] = [at(curve, y1 < y2 ? from : until), at(curve, y1 < y2 ? until : from)];
  const place = (...at) => `${round(blossom([x1, c, c, x2], at))} ${round(blossom([y1, y1, y2, y2], at))}`;
  return `M${place(first, first, first)}C${place(first, first, last)} ${place(first, last, last)} ${place(last, last, last)}`;
}

// The polar form of a cubic Bézier curve: de Casteljau's steps, each with a parameter of its own.
function blossom(points, parameters) {
  let left = points;
  for (const t of parameters) left = left.slice(1).map((point, index) => left[index] + (point - left[index]) * t);
  return left[0];
}

// Returns the parameter from 0 to 1 at which a curve is at a height: it only rises, or only falls.
function at({ y1, y2 }, y) {
  const share = Math.min(1, Math.max(0, (y - y1) / (y2 - y1)));
  let [low, high] = [0, 1];
  for (let step = 0; step < 20; step += 1) {
    const middle = (low + high) / 2;
    if (middle * middle * (3 - 2 * middle) < share) low = middle;
    else high = middle;
  }
  return low;
}
