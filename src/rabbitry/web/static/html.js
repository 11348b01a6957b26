// Preact with htm: templates that need no compiler. Text in them is always text, never markup.
import { h } from "./vendor/preact/preact.mjs";
import htm from "./vendor/htm/htm.module.js";

export { Component, createRef, render } from "./vendor/preact/preact.mjs";
export { h };
export const html = htm.bind(h);
