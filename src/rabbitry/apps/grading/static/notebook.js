// A notebook as a page. Its texts are drawn as text, whatever they contain.
import { query } from "../../static/ask.js";
import { Component, html } from "../../static/html.js";
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

const PAUSE = 2000; // milliseconds until a picture is asked for again: the server refuses some while it reads others
const MOST = 5; // times that it is

// Props: id (of the submission), path (of the notebook in an archive; null without one), number (of the picture).
class Picture extends Component {
  state = { failed: 0, isWaiting: false };

  componentWillUnmount() {
    clearTimeout(this.timer);
  }

  again = () => {
    this.setState(({ failed }) => ({ failed: failed + 1, isWaiting: true }));
    this.timer = setTimeout(() => this.setState({ isWaiting: false }), PAUSE);
  };

  render({ id, path, number }, { failed, isWaiting }) {
    if (failed > MOST) return html`<p class="nothing">A picture that can't be shown now: load the page again.</p>`;
    if (isWaiting) return html`<p class="nothing">A picture is being loaded.</p>`;
    return html`<img alt="A picture that the cell shows" loading="lazy" onError=${this.again} src=${`api/pictures/${encodeURIComponent(id)}/${number}?${query({ path })}`} />`;
  }
}

function output(id, path, { kind, text, picture }) {
  if (kind === "picture") return html`<${Picture} id=${id} path=${path} number=${picture} />`;
  if (kind === "other") return html`<p class="nothing">An output that is not shown: ${visible(text)}</p>`;
  return html`<pre class=${`output ${kind}`}>${visible(text)}</pre>`;
}

// The text of a cell of Markdown, on request; at once if it has comments. Props: cell, number, lines, commented.
class Source extends Component {
  wasCommented = this.props.commented(this.props.number) > 0;

  render({ cell, number, lines, commented }) {
    const comments = commented(number);
    return html`<details open=${this.wasCommented}>
      <summary>The lines of cell ${number}${comments > 0 && `, with comments (${comments})`}</summary>${lines(cell, number)}</details>`;
  }
}

// Whether the lines of a cell can be shown: those of a cell that only says how many are left out can't.
export const hasLines = (cell) => cell.kind !== "markdown" || cell.pieces.length > 0;

// Props: id (of the submission), path (in an archive), cells, lines(cell, number) (draws the lines of a cell, counted from 1), commented(number) (how
// many comments are on a cell).
export function Notebook({ id, path, cells, lines, commented }) {
  return html`<div class="notebook" tabindex="0" role="region" aria-label="The notebook">
    ${cells.map((cell, index) => html`<section key=${index} class=${cell.kind}>
      ${cell.kind === "markdown" ? markdown(cell.marks) : lines(cell, index + 1)}
      ${cell.kind === "markdown" && hasLines(cell) && html`<${Source} cell=${cell} number=${index + 1} lines=${lines} commented=${commented} />`}
      ${cell.outputs.map((one) => output(id, path, one))}</section>`)}
  </div>`;
}
