// Typed text that is not sent yet, kept in the browser over reloads, refusals and lost connections.
import * as typed from "../../static/typed.js";
import { ask } from "./api.js";

const SENT = "sent";
const MOST_SENT = 20; // drafts of decisions, which may be taken back, that are kept

export const load = (key) => typed.load(`grading.${key}`);
export const save = (key, value) => typed.save(`grading.${key}`, value);
export const drop = (key) => typed.drop(`grading.${key}`);

export const keyOf = (role, id) => `draft.${role}.${id}`;

// Drops the draft of a decision, but keeps it apart: the decision may be taken back.
export function sent(role, id) {
  const draft = load(keyOf(role, id));
  if (draft !== null) save(SENT, [{ role, id, draft, number: Math.random() }, ...decided()].slice(0, MOST_SENT));
  drop(keyOf(role, id));
}

// Returns the draft for an inbox entry that is opened; null if there is none. The decision may have been taken back.
export function opened(role, id, item) {
  decided().filter((one) => one.role === role && one.id === id && one.draft.item === item).forEach(restore);
  return load(keyOf(role, id));
}

const decided = () => load(SENT) ?? [];

// Drops the drafts of decisions that can't be taken back any more. Those of decisions that were taken back are drafts again.
export async function tidy() {
  const before = decided(); // what is decided while the server answers is looked at next time
  for (const role of new Set(before.map((one) => one.role))) {
    const ours = before.filter((one) => one.role === role);
    try {
      const held = new Set((await ask(`unsent/${role}`)).decisions.map(({ item }) => item));
      for (const one of ours) if (!held.has(one.draft.item)) await settle(one);
    } catch (error) {
      if (error.status !== 403) return; // the server or its database is away, or the session has ended
      ours.forEach(leaveOut);
    }
  }
}

async function settle(one) {
  try {
    const { item } = await ask(`inbox/${one.role}/${encodeURIComponent(one.id)}`);
    if (item === one.draft.item) restore(one);
  } catch (error) {
    if (error.status !== 404) throw error;
  }
  leaveOut(one);
}

function restore(one) {
  // While the server answered, the entry may have been opened, and even decided once more.
  if (!decided().some(({ number }) => number === one.number)) return;
  if (load(keyOf(one.role, one.id)) === null) save(keyOf(one.role, one.id), one.draft);
  leaveOut(one);
}

function leaveOut(gone) {
  const left = decided().filter(({ number }) => number !== gone.number);
  if (left.length > 0) save(SENT, left);
  else drop(SENT);
}
