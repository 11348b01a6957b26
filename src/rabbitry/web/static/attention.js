// What needs attention on the overview beside what the server tells: the panels of apps add to it.

const sources = new Map(); // name of the panel's app → its problems
const listeners = new Set();

// Replaces the problems of an app: title → {bad, what, todo, link}, as in the feed's topic `attention`.
export function attend(app, found) {
  if (JSON.stringify(found) === JSON.stringify(sources.get(app) ?? {})) return;
  sources.set(app, found);
  for (const listener of listeners) listener(Object.assign({}, ...sources.values()));
}

// Calls `listener` with the problems of all apps after each change.
export function watchAttention(listener) {
  listeners.add(listener);
}
