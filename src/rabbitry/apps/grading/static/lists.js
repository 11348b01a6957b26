// What every list has: a filter, and pages.
import { html } from "../../static/html.js";
import { plain } from "./text.js";

// Props: find, module, status (where there is one to choose), modules, statuses, onChange(change).
export function Filter({ find, module, status, modules, statuses, onChange }) {
  const choice = (label, name, value, options) => html`<label class="find"><span>${label}</span>
    <select name=${name} value=${value} onChange=${(event) => onChange({ [name]: event.currentTarget.value })}>
      <option value="">all</option>
      ${options.map((option) => html`<option value=${option}>${plain(option)}</option>`)}
    </select></label>`;
  return html`<div class="filter">
    ${statuses && choice("Status", "status", status, statuses)}
    ${choice("Module", "module", module, modules)}
    <label class="find"><span>Find</span><input type="search" value=${find} placeholder="student or id"
      onInput=${(event) => onChange({ find: event.currentTarget.value })} /></label>
  </div>`;
}

// Props: page (from 0), each (entries of a page), total, onPage(page). Draws nothing where all is on one page.
export function Pager({ page, each, total, onPage }) {
  if (total <= each && page === 0) return null;
  const first = page * each + 1;
  return html`<nav class="pager" aria-label="Pages">
    <button type="button" disabled=${page === 0} onClick=${() => onPage(page - 1)}>Previous</button>
    <span>${first.toLocaleString()}–${Math.min(total, first + each - 1).toLocaleString()} of ${total.toLocaleString()}</span>
    <button type="button" disabled=${first + each > total} onClick=${() => onPage(page + 1)}>Next</button>
  </nav>`;
}
