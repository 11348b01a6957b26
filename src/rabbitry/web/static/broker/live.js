// The page's feed, shared by its parts, and what the header says of it.
import { Feed } from "../feed.js";
import { report, reportLink } from "../status.js";

let link = { state: "connecting" };

export const feed = new Feed((state) => {
  link = state;
  queueMicrotask(told); // the first state comes while the feed is being made
});

const KINDS = { idle: "unknown", connecting: "busy", live: "good", away: "bad", refused: "bad", missing: "bad" };
let sources = {};
const listeners = new Set();

feed.open("sources", {}, ({ value }) => {
  sources = value;
  told();
  for (const listener of listeners) listener(sources);
});

function told() {
  reportLink(link, feed.connection);
  for (const { title, state, at, reason, where } of Object.values(sources)) {
    const kind = link.state === "live" ? KINDS[state] : "unknown";
    const heard = at === null ? undefined : performance.now() - 1000 * feed.age(at);
    report(title, { kind, text: link.state === "live" ? state : "unknown", title: reason || where, at: heard });
  }
}

setInterval(() => link.state === "lost" && told(), 1000); // the seconds until the next try

// Calls `listener` with the sources now and after each change; returns a function that ends it.
export function watchSources(listener) {
  listeners.add(listener);
  listener(sources);
  return () => listeners.delete(listener);
}
