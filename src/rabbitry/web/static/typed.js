// Text that the page's user typed and has not sent, kept in the browser over reloads, under the name of their account.
// Others at the same computer do not find it: it goes when the user signs out, and when another account opens a page.
const user = document.querySelector("meta[name=rabbitry-user]")?.content ?? "";
// Dashboards behind one proxy share the storage of their origin.
const OF_ALL = `rabbitry.typed ${new URL("../", import.meta.url).pathname} `;
let isOver = false;
const MINE = `${OF_ALL}${encodeURIComponent(user)} `;

function store(work, otherwise) {
  try {
    return work(localStorage);
  } catch {
    return otherwise; // storage is off or full: pages still work, and keep typed text while they are open
  }
}

export function load(key) {
  return store((storage) => JSON.parse(storage.getItem(MINE + key) ?? "null"), null);
}

export function save(key, value) {
  if (!isOver) store((storage) => storage.setItem(MINE + key, JSON.stringify(value)));
}

export function drop(key) {
  store((storage) => storage.removeItem(MINE + key));
}

function remove(isGone) {
  store((storage) => Object.keys(storage).filter((key) => key.startsWith(OF_ALL) && isGone(key)).forEach((key) => storage.removeItem(key)));
}

// Removes the text of all accounts, and keeps none that is typed until another page is open.
export function forget() {
  isOver = true;
  remove(() => true);
}

remove((key) => !key.startsWith(MINE));
