// How values of the broker's tables are drawn.
import { bytes, rate, shown } from "../format.js";
import { html } from "../html.js";

// Made once: toLocaleString with options makes one at each call.
const PLAIN = new Intl.NumberFormat("en");
const TENTHS = new Intl.NumberFormat("en", { maximumFractionDigits: 1 });
const WHOLE = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });

export const number = (value) => (value ? PLAIN.format(value) : html`<span class="zero">0</span>`);
export const perSecond = (value) => (value ? `${(value < 10 ? TENTHS : WHOLE).format(value)}/s` : html`<span class="zero">0/s</span>`);
export const size = (value) => (value ? bytes(value) : html`<span class="zero">0 B</span>`);
export const traffic = (value) => (value ? rate(value) : html`<span class="zero">0 B/s</span>`);
export const name = (value) => (value ? html`<bdi>${shown(value)}</bdi>` : html`<span class="zero">(default)</span>`);
export const tags = (value) => value.split(" ").filter(Boolean).map((tag) => html`<span class="tag">${shown(tag)}</span> `);
export const time = (value) => (value ? new Date(value * 1000).toLocaleString() : "");
export const VHOST = { name: "vhost", title: "Virtual host", from: 3, draw: name };
