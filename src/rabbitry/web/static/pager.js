// The pages of a list.
import { html } from "./html.js";

// Props: page (from 0), each (entries of a page), total, onPage(page). Draws nothing where all is on one page.
export function Pager({ page, each, total, onPage }) {
  if (total <= each && page === 0) return null;
  const first = page * each + 1;
  // A button that is reached by keyboard keeps the focus at the first and last page, too.
  const button = (title, isAtEnd, to) => html`<button type="button" aria-disabled=${isAtEnd} onClick=${isAtEnd ? null : () => onPage(to)}>${title}</button>`;
  return html`<nav class="pager" aria-label="Pages">
    ${button("Previous", page === 0, page - 1)}
    <span>${first.toLocaleString()}–${Math.min(total, first + each - 1).toLocaleString()} of ${total.toLocaleString()}</span>
    ${button("Next", first + each > total, page + 1)}
  </nav>`;
}
