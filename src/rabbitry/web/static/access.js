import { leave } from "./leaving.js";
import { forget } from "./typed.js";

// The role of the page's user. The server checks each request; the page only disables what it would refuse.
const ROLES = ["anyone", "member", "viewer", "operator", "admin"];

export const role = document.querySelector("meta[name=rabbitry-role]")?.content ?? "viewer";

// Returns why the user may not do what needs a role; null if they may.
export const lacking = (needed) =>
  ROLES.indexOf(role) >= ROLES.indexOf(needed) ? null : `This needs the role ${needed}, and you have the role ${role}.`;

// Ends the session, and removes what its user typed.
export async function signOut() {
  forget();
  leave();
  const root = new URL("../", import.meta.url);
  const headers = { "X-Rabbitry-Token": document.querySelector("meta[name=rabbitry-token]").content };
  let next = new URL("login/", root);
  try {
    const answer = await fetch(new URL("logout", root), { method: "POST", headers, signal: AbortSignal.timeout(30_000) });
    const { leave } = await answer.json();
    if (leave) next = leave; // the session with the provider that the user signed in with
  } finally {
    location.href = next;
  }
}
