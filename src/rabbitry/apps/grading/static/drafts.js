// Typed text that is not sent yet, kept in the browser over reloads, refusals and lost connections.
const PREFIX = "rabbitry.grading.";

function store(work, otherwise) {
  try {
    return work(localStorage);
  } catch {
    return otherwise; // storage is off or full: the page still works, and keeps typed text while it is open
  }
}

export function load(key) {
  return store((storage) => JSON.parse(storage.getItem(PREFIX + key) ?? "null"), null);
}

export function save(key, value) {
  store((storage) => storage.setItem(PREFIX + key, JSON.stringify(value)));
}

export function drop(key) {
  store((storage) => storage.removeItem(PREFIX + key));
}
