// The pages of a list.
import { html } from "./html.js";

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
