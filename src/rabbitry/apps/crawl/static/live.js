// The data of the live picture. Updates change it at once; listeners are called once a frame if anything changed.

const NOTHING = { total: 0, rate: 0, lines: 0, wire: 0, last: "", host: "" };

export class Live {
  constructor() {
    this.nodes = new Map(); // by the server's keys
    this.totals = null;
    this.queues = {};
    this.broker = null;
    this.link = { state: "connecting" };
    this.trouble = null; // why the connection is lost, until it is back
    this.listeners = new Set();
    setInterval(() => this.change(), 1000); // ages grow
  }

  // Applies one message of the server, see `Update` in picture.py.
  receive(update) {
    if (update.reset) this.nodes.clear();
    if (update.broker) this.broker = update.broker;
    if (update.totals) this.totals = update.totals;
    if (update.queues) this.queues = update.queues;
    for (const [key, node] of Object.entries(update.nodes ?? {})) {
      // Its last message by this machine's clock, whatever the server's clock shows.
      const seenAt = performance.now() - (update.now - node.at) * 1000;
      this.nodes.set(key, { ...NOTHING, ...node, key, seenAt });
    }
    for (const key of update.gone ?? []) this.nodes.delete(key);
    this.change();
  }

  setLink(link) {
    this.link = link;
    if (link.state === "live") this.trouble = null;
    if (link.reason) this.trouble = link.reason;
    this.change();
  }

  listen(listener) {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  }

  change() {
    if (this.pending) return;
    this.pending = true;
    requestAnimationFrame(() => {
      this.pending = false;
      this.listeners.forEach((listener) => listener());
    });
  }
}

export const perSecond = (value) => (value === 0 ? "0" : value < 9.95 ? value.toFixed(1) : Math.round(value).toLocaleString("en"));
