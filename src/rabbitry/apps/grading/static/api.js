// The page's requests to the server, and formats for the answers.
import { lacking } from "../../static/access.js";
import { ask, post, query } from "../../static/ask.js";

export { ask, query };

// What the page's user may see and do: `person` of the server's overview. It is the same until the page is loaded again.
let person = { role: null, name: null, student: null, inboxes: [], submits: true };
export const me = () => person;
export const meet = (found) => (person = found);

// Returns why the user may not download or decide; null if they may. The server checks each request.
export const refused = () => (person.role === null ? lacking("operator") : null);

export const fileURL = (id) => `api/files/${encodeURIComponent(id)}`;

export const decide = (role, id, verdict) =>
  post(`inbox/${role}/${encodeURIComponent(id)}`, verdict);

export const takeBack = (role, id) => post(`unsent/${role}/${encodeURIComponent(id)}`, {});

export const askAgain = (id, asked) => post(`submissions/${encodeURIComponent(id)}/requests`, asked);

export const accept = (id, given) => post(`submissions/${encodeURIComponent(id)}/acceptance`, given);

// Withdraws the acceptance of a time: one that somebody else made in the meantime stays.
export const withdraw = (id, given) => post(`submissions/${encodeURIComponent(id)}/withdrawal`, given);

export const answer = (number, given) => post(`requests/${number}`, given);

// Whether the user may have submissions marked again, accept them or withdraw that: a coordinator, or an admin of the dashboard.
export const regrades = () => person.role === "coordinator" || (person.role === null && lacking("admin") === null);

export const regrade = (wanted) => post("regrades", wanted);

export const tryRegrade = (wanted) => post("regrades/trial", wanted);

// Holds the results of a module until a time, or releases them.
export const release = (wanted) => post("releases", wanted);

export const compare = (wanted) => post("similar", wanted);

export const submit = (form) => ask("submissions", { method: "POST", body: new FormData(form) });

export const time = (iso) => (iso ? new Date(iso).toLocaleString([], { dateStyle: "short", timeStyle: "medium" }) : "");

export function mark(given, total) {
  if (given === null || given === undefined) return "–";
  const text = (value) => (typeof value === "number" ? String(Math.round(value * 100) / 100) : value);
  return total === null || total === undefined ? text(given) : `${text(given)} / ${text(total)}`;
}

// A duration by its two largest units: 93600 -> "1 d 2 h".
export function duration(seconds) {
  let left = Math.max(Math.floor(seconds), 1);
  const parts = [];
  for (const [name, length] of [["d", 86400], ["h", 3600], ["min", 60], ["s", 1]]) {
    if (left >= length) parts.push(`${Math.floor(left / length)} ${name}`);
    left %= length;
  }
  return parts.slice(0, 2).join(" ");
}
