// A notebook as a page. Its texts are drawn as text, whatever they contain.
import { html } from "../../static/html.js";
import { visible } from "./text.js";

// Draws marks ([kind, text]) of a text in Markdown: elements open and close as in the list.
function markdown(marks) {
  const open = [{ children: [] }];
  const add = (child) => open.at(-1).children.push(child);
  for (const [kind, text] of marks) {
    if (kind === "open" || kind === "link") open.push({ kind, text, children: [] });
    else if (kind === "close" && open.length > 1) {
      const { kind: what, text: value, children } = open.pop();
      if (what === "link") add(value ? html`<a href=${value} target="_blank" rel="noopener noreferrer">${children}</a>` : html`<span>${children}</span>`);
      else add(value === "hr" ? html`<hr />` : html`<${value}>${children}<//>`);
    } else if (kind === "code") add(html`<code>${visible(text)}</code>`);
    else if (kind === "block") add(html`<pre><code>${visible(text)}</code></pre>`);
    else add(visible(text));
  }
  return open[0].children;
}

function output(id, { kind, text, picture }) {
  if (kind === "picture") return html`<img alt="A picture that the cell shows" loading="lazy" src=${`api/pictures/${encodeURIComponent(id)}/${picture}`} />`;
  if (kind === "other") return html`<p class="nothing">An output that is not shown: ${visible(text)}</p>`;
  return html`<pre class=${`output ${kind}`}>${visible(text)}</pre>`;
}

// Props: id (of the submission), cells, code(cell, number) (draws the code of a cell, counted from 1).
export function Notebook({ id, cells, code }) {
  return html`<div class="notebook" tabindex="0" role="region" aria-label="The notebook">
    ${cells.map((cell, index) => html`<section key=${index} class=${cell.kind}>
      ${cell.kind === "code" ? code(cell, index + 1) : markdown(cell.marks)}
      ${cell.outputs.map((one) => output(id, one))}</section>`)}
  </div>`;
}
