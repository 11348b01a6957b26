// The positions of the nodes: crawlers in a column on the left, the broker in the middle, processors on the right, keepers
// and all others below the broker. Nodes that exceed a column are drawn as groups.

export const MOST = 40; // entries of a column
const compare = (a, b) => (a < b ? -1 : a > b ? 1 : 0);

// The entries of a column: nodes, or groups of nodes by machine, or else by the first letter of their ids.
export function entries(nodes) {
  const sorted = [...nodes].sort((a, b) => compare(a.id, b.id) || compare(a.kind, b.kind));
  if (sorted.length <= MOST) return sorted.map((node) => single(node));
  const hosts = new Set(sorted.map((node) => node.host));
  const byHost = !hosts.has("") && hosts.size > 1 && hosts.size <= MOST;
  const groups = new Map();
  for (const node of sorted) {
    const name = byHost ? node.host : `${[...node.id][0].toLowerCase()}…`;
    if (!groups.has(name)) groups.set(name, []);
    groups.get(name).push(node);
  }
  const found = [...groups].map(([name, members]) => group(name, members));
  if (found.length <= MOST) return found;
  found.sort((a, b) => b.members.length - a.members.length || compare(a.name, b.name));
  return [...found.slice(0, MOST - 1), group("others", found.slice(MOST - 1).flatMap((entry) => entry.members))];
}

const single = (node) => ({ key: node.key, name: node.id, kind: node.kind, total: node.total, rate: node.rate, members: [node] });

function group(name, members) {
  const sum = (of) => members.reduce((total, node) => total + of(node), 0);
  const kind = members[0].kind;
  return { key: `group ${kind} ${name}`, name, kind, total: sum((node) => node.total), rate: sum((node) => node.rate), members };
}

// Returns {height, broker, places: [{entry, x, y, width, height, edge, isLow}]} for a picture of `width` pixels.
export function layout(width, nodes) {
  const all = [...nodes];
  const left = entries(all.filter((node) => node.kind === "crawler"));
  const right = entries(all.filter((node) => node.kind === "processor"));
  const below = entries(all.filter((node) => node.kind !== "crawler" && node.kind !== "processor"));
  const tall = Math.max(left.length, right.length, 1);
  const step = tall <= 10 ? 50 : tall <= 24 ? 34 : 25;
  const isLow = step < 40;
  const nodeHeight = step - (isLow ? 5 : 10);
  const nodeWidth = Math.round(Math.min(Math.max(width * 0.26, 86), 230));
  const brokerWidth = Math.round(Math.min(Math.max(width * 0.14, 60), 150));
  const columns = Math.max(tall * step, 120);
  const brokerHeight = Math.min(Math.max(columns * 0.4, 96), 240);
  const broker = { x: (width - brokerWidth) / 2, y: (columns - brokerHeight) / 2, width: brokerWidth, height: brokerHeight };
  const column = (found, x, isLeft) => found.map((entry, index) => {
    const y = (columns - found.length * step) / 2 + index * step + (step - nodeHeight) / 2;
    const from = isLeft ? x + nodeWidth : x;
    const to = isLeft ? broker.x : broker.x + brokerWidth;
    const at = broker.y + (brokerHeight * (index + 0.5)) / found.length;
    const middle = (from + to) / 2;
    const [ends, begins] = [`${to} ${at}`, `${from} ${y + nodeHeight / 2}`];
    const bend = [`${middle} ${y + nodeHeight / 2}`, `${middle} ${at}`];
    // Edges point the way that pages go: from crawlers to the broker, and on to processors.
    const edge = isLeft ? `M${begins} C${bend[0]} ${bend[1]} ${ends}` : `M${ends} C${bend[1]} ${bend[0]} ${begins}`;
    return { entry, x, y, width: nodeWidth, height: nodeHeight, isLow, edge };
  });
  const foot = below.length === 1 ? [beneath(below[0], broker, Math.max(brokerWidth, 86))] : rowsBelow(below, width, Math.max(columns, broker.y + brokerHeight), broker);
  const places = [...column(left, 1, true), ...column(right, width - nodeWidth - 1, false), ...foot];
  return { height: Math.max(columns, ...foot.map((place) => place.y + place.height)) + 4, broker, places };
}

// A single keeper is placed close to the broker, between the edges, as wide as its id needs.
function beneath(entry, { x, y, width, height }, wide) {
  const [middle, top] = [x + width / 2, y + height + 30];
  return { entry, x: middle - wide / 2, y: top, width: wide, height: 40, isLow: false, edge: `M${middle} ${y + height} L${middle} ${top}` };
}

function rowsBelow(found, width, top, broker) {
  const across = width < 480 ? 2 : 4;
  const wide = Math.min(200, width / across - 8);
  const [middle, foot] = [width / 2, broker.y + broker.height];
  return found.map((entry, index) => {
    const row = Math.floor(index / across);
    const inRow = Math.min(across, found.length - row * across);
    const centre = middle + ((index % across) - (inRow - 1) / 2) * (wide + 8);
    const y = top + 34 + row * 50;
    const edge = row === 0 ? `M${middle} ${foot} C${middle} ${y - 10} ${centre} ${foot + 10} ${centre} ${y}` : null;
    return { entry, x: centre - wide / 2, y, width: wide, height: 40, isLow: false, edge };
  });
}
