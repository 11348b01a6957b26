// Asking the server. What goes wrong is an Error with a text for people, and the status of the answer where there was one.

import { within } from "./leaving.js";

// What changes something carries the token that the page came with.
const TOKEN = document.querySelector("meta[name=rabbitry-token]")?.content;

export async function ask(path, options = {}) {
  const headers = options.method && TOKEN ? { ...options.headers, "X-Rabbitry-Token": TOKEN } : options.headers;
  let response;
  try {
    response = await fetch(`api/${path}`, { ...options, headers, signal: within(30_000) });
  } catch {
    throw new Error("the server does not answer");
  }
  let data;
  try {
    data = await response.json();
  } catch {
    data = null;
  }
  if (!response.ok) throw Object.assign(new Error(data?.error ?? `the server answered ${response.status}`), { status: response.status });
  return data;
}

export const post = (path, data) => ask(path, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(data) });

// The query of a list's filter; what is empty is left out.
export const query = (filter) => new URLSearchParams(Object.entries(filter).filter(([, value]) => value)).toString();
