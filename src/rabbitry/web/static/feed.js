// The live feed: the page's one WebSocket, and its subscriptions. docs/dashboard.md describes the protocol.
import { Connection } from "./connection.js";

export class Feed {
  // `changed(state)`: the state of the WebSocket, see Connection.
  constructor(changed, url = feedUrl()) {
    this.subscriptions = new Map();
    this.last = 0;
    this.clock = 0; // seconds that the server's clock is ahead of this one
    this.connection = new Connection(url, (message) => this.receive(message), changed, () => this.subscribe());
  }

  // Subscribes to a topic. `draw(state)` is called with each change; `state` stays the same object:
  // a value has {value, at}; a table {columns, keys, total, matching, first, rows, at}; a refused one {error}.
  open(topic, params, draw) {
    const id = ++this.last;
    const subscription = { topic, params, draw, seq: 0, state: {} };
    this.subscriptions.set(id, subscription);
    this.ask(id, subscription);
    return {
      // Other parameters: a whole part comes. What is shown stays until then.
      change: (other) => {
        if (JSON.stringify(other) === JSON.stringify(subscription.params)) return;
        subscription.params = other;
        this.ask(id, subscription);
      },
      close: () => {
        if (this.subscriptions.delete(id)) this.connection.send(JSON.stringify({ close: id }));
      },
    };
  }

  // Seconds since the source had the data.
  age(at) {
    return Math.max(0, Date.now() / 1000 + this.clock - at);
  }

  ask(id, subscription) {
    subscription.seq = 0;
    this.connection.send(JSON.stringify({ open: id, topic: subscription.topic, params: subscription.params ?? {} }));
  }

  subscribe() {
    // The last one first: it is what the page is about, those before it are what all pages have. The server may answer
    // the first one alone, and the others 0.2 s later.
    for (const [id, subscription] of [...this.subscriptions].reverse()) this.ask(id, subscription);
  }

  receive({ now, parts = [] }) {
    this.clock = now - Date.now() / 1000;
    for (const part of parts) {
      const subscription = this.subscriptions.get(part.id);
      if (subscription) this.apply(part.id, subscription, part);
    }
  }

  apply(id, subscription, part) {
    if ("error" in part) {
      subscription.state = { error: part.error };
    } else if (part.seq === 1) {
      const { id: _, seq, ...whole } = part;
      // A part of the parameters before, on its way while these were changed, can't be told from a new one here, but
      // the new one follows it at once.
      subscription.seq = 1;
      subscription.state = whole;
    } else if (part.seq !== subscription.seq + 1) {
      if (subscription.seq) this.ask(id, subscription); // a gap; 0: the whole part is on its way
      return;
    } else {
      subscription.seq = part.seq;
      merge(subscription.state, part);
    }
    subscription.draw(subscription.state);
  }
}

function merge(state, part) {
  if (part.set) state.value = { ...state.value, ...part.set };
  if (part.unset) for (const name of part.unset) delete state.value[name];
  for (const name of ["at", "total", "matching"]) if (name in part) state[name] = part[name];
  if (!state.rows) return;
  if ("length" in part) state.rows.length = Math.min(state.rows.length, part.length);
  for (const [index, row] of part.rows ?? []) state.rows[index] = row;
}

function feedUrl() {
  const url = new URL("../feed", import.meta.url);
  url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
  return url;
}
