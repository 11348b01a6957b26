// The filter of every list.
import { html } from "../../static/html.js";
import { plain } from "./text.js";

// Props: find, module, status (if it can be chosen), modules, statuses, onChange(change).
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
