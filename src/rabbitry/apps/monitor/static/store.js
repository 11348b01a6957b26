// All that the page knows. Updates change it at once; listeners are called once a frame, if anything changed.
import { view } from "./sample.js";

export const HISTORY = 180; // samples that a chart shows
export const STALE_AFTER = 20_000;
export const LOST_AFTER = 300_000; // silence that is worth another colour
const GAP = 5; // seconds without a sample that a chart shows as a gap

class Host {
  constructor(id) {
    this.id = id;
    this.seq = 0;
    this.version = 0;
    this.clear();
  }

  clear() {
    this.times = [];
    this.series = [[], [], [], []]; // cpu, memory, rx, tx
  }

  push(at, values) {
    const last = this.times.at(-1);
    if (last !== undefined && at - last > GAP) this.point((at + last) / 2, [null, null, null, null]);
    this.point(at, values);
  }

  point(at, values) {
    this.times.push(at);
    values.forEach((value, index) => this.series[index].push(value));
    if (this.times.length > HISTORY) [this.times, ...this.series].forEach((column) => column.shift());
  }

  // What the latest sample says, read when somebody asks.
  get view() {
    this.seen ??= view(this.raw);
    return this.seen;
  }

  // Milliseconds of silence.
  get silence() {
    return performance.now() - this.seenAt;
  }

  latest(index) {
    return this.series[index].at(-1) ?? null;
  }

  take(sample, now) {
    this.seq = sample.seq;
    this.name = sample.host;
    this.key = sample.key;
    this.machine = sample.machine;
    this.clock = sample.clock;
    this.raw = sample.raw;
    this.seen = null;
    this.at = sample.at;
    // When it was seen on this machine's own clock, whatever the server's clock says.
    this.seenAt = performance.now() - (now - sample.at) * 1000;
    this.stale = this.silence > STALE_AFTER;
    this.version += 1;
  }
}

export class Store {
  constructor() {
    this.hosts = new Map(); // by the ids that the server makes of the names
    this.broker = null;
    this.unread = null;
    this.skipped = 0;
    this.link = { state: "connecting" };
    this.trouble = null; // why there is no link, until there is one again
    this.samples = 0; // received by this page
    this.rate = null; // samples a second
    this.listeners = new Set();
    this.counted = { samples: 0, at: performance.now() };
    setInterval(() => this.tick(), 1000);
  }

  // Take one message of the server, see `Update` in hub.py.
  receive(update) {
    if (update.reset) this.hosts.clear();
    if (update.broker) this.broker = update.broker;
    if (update.unread) this.unread = update.unread;
    if (update.skipped) this.skipped = update.skipped;
    for (const { id, latest, history } of update.hosts ?? []) {
      const known = this.host(id);
      known.clear();
      history.forEach(([at, values]) => known.push(at, values));
      known.take(latest, update.now);
    }
    for (const sample of update.samples ?? []) {
      const known = this.host(sample.id);
      known.push(sample.at, sample.values);
      known.take(sample, update.now);
    }
    for (const id of update.gone ?? []) this.hosts.delete(id);
    this.samples += update.samples?.length ?? 0;
    this.change();
  }

  host(id) {
    let known = this.hosts.get(id);
    if (!known) {
      known = new Host(id);
      this.hosts.set(id, known);
    }
    return known;
  }

  setLink(link) {
    this.link = link;
    if (link.state === "live") this.trouble = null;
    else this.counted = null;
    if (link.reason) this.trouble = link.reason;
    this.change();
  }

  tick() {
    const now = performance.now();
    for (const host of this.hosts.values()) {
      const stale = host.silence > STALE_AFTER;
      if (stale || host.stale) host.version += 1; // its age is shown, and grows
      host.stale = stale;
    }
    if (this.link.state !== "live") this.rate = null;
    else if (this.counted) {
      const rate = (1000 * (this.samples - this.counted.samples)) / (now - this.counted.at);
      this.rate = this.rate === null ? rate : this.rate + (rate - this.rate) * 0.3;
    }
    this.counted = { samples: this.samples, at: now };
    this.change();
  }

  listen(listener) {
    this.listeners.add(listener);
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
