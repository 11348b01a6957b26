// A chain's passages as a tree: what each message led to.

// Returns a list of {passages, led, children}: a message's passages (its attempts and its stages, in time), the messages
// that they led to and that no reported stage took, and the messages that one took. Messages whose cause is not known
// stand at the root.
export function tree(passages) {
  const nodes = new Map();
  passages.forEach((passage, index) => {
    // Without an id, as an older node reports, each passage stands for itself.
    const id = passage.message || `\0${index}`;
    if (!nodes.has(id)) nodes.set(id, { id, passages: [], children: [], led: [], parent: null });
    nodes.get(id).passages.push(passage);
  });
  for (const node of nodes.values()) {
    node.passages.sort((a, b) => a.began - b.began);
    const seen = new Set();
    for (const { ids, keys, message } of node.passages) {
      ids.forEach((id, place) => {
        if (id === message || seen.has(id)) return; // the message itself, again or as a dead letter
        if (id) seen.add(id);
        const child = nodes.get(id);
        if (!child) node.led.push({ id, key: keys[place] ?? "" });
        else if (child.parent === null && !isAbove(child, node)) {
          child.parent = node;
          node.children.push(child);
        }
      });
    }
  }
  const began = (node) => node.passages[0].began;
  for (const node of nodes.values()) node.children.sort((a, b) => began(a) - began(b));
  return [...nodes.values()].filter((node) => node.parent === null).sort((a, b) => began(a) - began(b));
}

// Whether `one` is above `other`: reports may name anything, also circles.
function isAbove(one, other) {
  for (let node = other; node; node = node.parent) if (node === one) return true;
  return false;
}
