// The page's feed, shared by its parts, and what the header says of it.
import { Feed } from "../feed.js";
import { reportLink, reportSource } from "../status.js";

let link = { state: "connecting" };

export const feed = new Feed((state) => {
  link = state;
  queueMicrotask(told); // the first state comes while the feed is being made
});

let sources = {};
const listeners = new Set();

feed.open("sources", {}, ({ value }) => {
  sources = value;
  told();
  for (const listener of listeners) listener(sources);
});

function told() {
  reportLink(link, feed.connection);
  for (const source of Object.values(sources)) {
    reportSource(source.title, link.state === "live" ? source : { state: "unknown", where: source.where }, source.at, feed);
  }
}

setInterval(() => link.state === "lost" && told(), 1000); // the seconds until the next try

// Calls `listener` with the sources now and after each change; returns a function that ends it.
export function watchSources(listener) {
  listeners.add(listener);
  listener(sources);
  return () => listeners.delete(listener);
}
