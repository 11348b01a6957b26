// Addresses and outcomes, shown by several parts of the page. Other people wrote the addresses.
import { shown } from "../../static/format.js";
import { html } from "../../static/html.js";

// The address of the page's explanation of an address.
export const whyOf = (url) => `#/why/${encodeURIComponent(url)}`;

export const Address = ({ url }) => html`<a href=${whyOf(url)} title="Why?"><bdi>${shown(url)}</bdi></a>`;

// An outcome's name, with its meaning as a tooltip.
export const Outcome = ({ name, detail, words }) =>
  html`<span class="outcome" data-outcome=${name} title=${shown([words?.[name], detail].filter(Boolean).join(": "))}>${shown(name)}</span>`;

export const moment = (seconds) => (seconds ? new Date(seconds * 1000).toLocaleString([], { dateStyle: "short", timeStyle: "medium" }) : "–");
