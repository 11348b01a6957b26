// Typed text that is not sent yet, kept in the browser over reloads, refusals and lost connections.
const PREFIX = "rabbitry.grading.";
const SENT = "sent";
const MOST_SENT = 20; // drafts of decisions, which may be taken back, that are kept

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

// Drops a draft, but keeps it apart: its decision may be taken back.
export function sent(key) {
  const others = (load(SENT) ?? []).filter(([other]) => other !== key);
  save(SENT, [[key, load(key)], ...others].slice(0, MOST_SENT));
  drop(key);
}

// Returns the draft of a decision on an inbox entry that was sent; null if there is none.
export function takenBack(key, item) {
  const found = (load(SENT) ?? []).find(([other]) => other === key)?.[1];
  return found?.item === item ? found : null;
}
