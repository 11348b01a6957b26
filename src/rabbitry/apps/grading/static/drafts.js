// What somebody has typed and not sent: kept by the browser, so that no reload, refusal or lost connection costs it.
const PREFIX = "rabbitry.grading.";

function store(work, otherwise) {
  try {
    return work(localStorage);
  } catch {
    return otherwise; // switched off, or full: the page still works, and keeps what is typed while it is open
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
