// A solution in numbered lines, with the comments on them. By keyboard or pointer, a person adds comments of their own.
import { Component, createRef, html } from "../../static/html.js";
import { hasLines, Notebook } from "./notebook.js";
import { placeOf, visible } from "./text.js";

const LONGEST = 2000; // characters of a comment
const STEPS = { ArrowDown: 1, j: 1, ArrowUp: -1, k: -1, PageDown: 20, PageUp: -20, Home: -Infinity, End: Infinity };
const NEXT = { n: 1, p: -1 }; // to the next line with a comment, and to the one before

// Splits pieces of a text ([text, kind]) into lines of pieces.
function linesOf(pieces) {
  const lines = [[]];
  for (const [text, kind] of pieces) {
    const [first, ...others] = text.split("\n");
    if (first !== "") lines.at(-1).push([first, kind]);
    for (const part of others) lines.push(part === "" ? [] : [[part, kind]]);
  }
  if (lines.length > 1 && lines.at(-1).length === 0) lines.pop();
  return lines;
}

const coloured = ([text, kind]) => (kind === null ? visible(text) : html`<span class=${`code-${kind}`}>${visible(text)}</span>`);

// Props: number, place (of the lines, for their labels), pieces, mine (the text of one's own comment, if any), earlier (comments), isCurrent, on (functions; null to read).
class Line extends Component {
  shouldComponentUpdate(next) {
    return ["mine", "earlier", "isCurrent", "pieces"].some((name) => next[name] !== this.props[name]);
  }

  render({ number, pieces, mine, earlier, isCurrent, on, place }) {
    return html`<li data-line=${number}>
      ${on === null ? html`<span class="line-number">${number}</span>`
        : html`<button type="button" class="line-number" tabindex=${isCurrent ? 0 : -1} aria-label=${`Comment on line ${number}${place}`}
            onClick=${() => on.open(number)}>${number}</button>`}
      <code>${pieces.map(coloured)}</code>
      ${earlier?.map(({ text, role, who }) => html`<p class="said"><b>${visible(role)} ${visible(who)}:</b> ${visible(text)}</p>`)}
      ${mine !== undefined && html`<textarea class="said" rows="2" maxlength=${LONGEST} aria-label=${`Your comment on line ${number}${place}`}
        value=${mine} onInput=${(event) => on.type(number, event.currentTarget.value)} onBlur=${() => on.leave(number)} />`}
    </li>`;
  }
}

// Props: pieces, earlier ([{line, text, role, who}]), mine ({line: text}; null to read only), change(comments), place.
// Keys: j, k and the arrows choose a line, Enter comments on it, Escape leaves the comment, n and p go to the next and
// the previous comment.
class Lines extends Component {
  list = createRef();

  constructor(props) {
    super(props);
    this.lines = linesOf(props.pieces);
    this.state = { current: 1 };
    this.byLine = new Map();
    for (const one of props.earlier) this.byLine.set(one.line, [...(this.byLine.get(one.line) ?? []), one]);
    this.on = props.mine === null ? null : { open: this.open, type: this.type, leave: this.leave };
  }

  // Moves the focus to a line's number or comment.
  focus(line, what) {
    this.setState({ current: line }, () => this.list.current.querySelector(`[data-line="${line}"] ${what}`)?.focus());
  }

  open = (line) => {
    this.props.change({ [line]: "", ...this.props.mine });
    this.focus(line, "textarea");
  };

  type = (line, text) => this.props.change({ ...this.props.mine, [line]: text });

  leave = (line) => {
    const { [line]: text, ...others } = this.props.mine;
    if (text?.trim() === "") this.props.change(others);
  };

  onKey = (event) => {
    const line = Number(event.target.closest("[data-line]")?.dataset.line);
    if (event.target.tagName === "TEXTAREA") {
      if (event.key !== "Escape") return;
      this.focus(line, "button");
    } else {
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      const to = event.key in NEXT ? this.commented(line, NEXT[event.key]) : line + STEPS[event.key];
      if (Number.isNaN(to) || to === undefined) return;
      this.focus(Math.min(Math.max(to, 1), this.lines.length), "button");
    }
    event.preventDefault();
    event.stopPropagation(); // the inbox has j, k and Escape of its own
  };

  // Returns the next line with a comment in a direction; the line itself if there is none.
  commented(line, step) {
    const lines = [...this.byLine.keys(), ...Object.keys(this.props.mine).map(Number)].sort((one, other) => step * (one - other));
    return lines.find((one) => step * (one - line) > 0) ?? line;
  }

  render({ mine, place = "" }, { current }) {
    return html`<ol class="solution lines" ref=${this.list} onKeyDown=${this.on && this.onKey} tabindex=${this.on ? null : 0}
        aria-label=${`The solution${place}`}>
      ${this.lines.map((pieces, index) => html`<${Line} key=${index} number=${index + 1} place=${place} pieces=${pieces} on=${this.on}
        isCurrent=${index + 1 === current} mine=${mine?.[index + 1]} earlier=${this.byLine.get(index + 1)} />`)}
    </ol>`;
  }
}

// The comments in a cell, with their lines as keys. mine: {"line": text, "cell:line": text}.
function inCell(mine, cell) {
  if (mine === null) return null;
  const start = `${cell}:`;
  return Object.fromEntries(Object.entries(mine).filter(([at]) => at.startsWith(start)).map(([at, text]) => [at.slice(start.length), text]));
}

// Props: cell (its number), of (the cell), and earlier, mine and change of the whole notebook.
class Cell extends Component {
  earlier = this.props.earlier.filter(({ cell }) => cell === this.props.cell);

  change = (comments) => {
    const { cell, mine, change } = this.props;
    const others = Object.entries(mine).filter(([at]) => !at.startsWith(`${cell}:`));
    change(Object.fromEntries([...others, ...Object.entries(comments).map(([line, text]) => [`${cell}:${line}`, text])]));
  };

  render({ cell, of, mine }) {
    return html`<${Lines} pieces=${of.pieces} earlier=${this.earlier} mine=${inCell(mine, cell)} change=${this.change} place=${` of cell ${cell}`} />`;
  }
}

// Returns whether a comment is on a line that is drawn. count: returns how many lines pieces have. path: of the file that is
// drawn, in an archive.
function isDrawn({ file, cell, line }, of, path, count) {
  if (file !== path || of.is_binary || (cell === null) !== (of.notebook === null)) return false;
  if (cell === null) return line <= count(of.pieces);
  const drawn = of.notebook[cell - 1];
  return drawn !== undefined && hasLines(drawn) && line <= count(drawn.pieces);
}

// The earlier comments on lines that are not drawn: beyond what is shown, of a notebook's raw text, or made by another program.
class Elsewhere extends Component {
  shouldComponentUpdate(next) {
    return next.of !== this.props.of || next.earlier !== this.props.earlier;
  }

  render({ of, path, earlier }) {
    const counted = new Map();
    const count = (pieces) => counted.get(pieces) ?? counted.set(pieces, linesOf(pieces).length).get(pieces);
    return html`<${Said} comments=${earlier.filter((one) => !isDrawn(one, of, path, count))} />`;
  }
}

// Props: comments, on lines that are not drawn.
export function Said({ comments }) {
  if (comments.length === 0) return null;
  return html`<section class="elsewhere" aria-label="Comments on lines that are not shown">
    <h4>Comments on lines that are not shown here</h4>
    ${comments.map((one) => html`<p class="said"><b>${visible(one.role)} ${visible(one.who)}</b>,${" "}
      ${visible(placeOf(one))}: ${visible(one.text)}</p>`)}
  </section>`;
}

// How many comments are on a cell.
const onCell = (earlier, mine, number) => earlier.filter(({ cell }) => cell === number).length
  + Object.keys(mine ?? {}).filter((at) => at.startsWith(`${number}:`)).length;

// A solution as a person can read it best. Props: id (of the submission), path (of the file in an archive; null without one), of
// (pieces, notebook, is_binary, is_cut), earlier ([{file, cell, line, text, role, who}]), mine ({line: text}, in a notebook
// {"cell:line": text}; null to read only), change(comments).
export function Solution({ id, path = null, of, earlier, mine, change }) {
  const elsewhere = html`<${Elsewhere} of=${of} path=${path} earlier=${earlier} />`;
  const here = earlier.filter(({ file }) => file === path); // another program may name a file where there is no archive
  if (of.is_binary) return html`<p class="nothing">The file is not text and can't be shown here.</p>${elsewhere}`;
  return html`
    ${of.notebook === null
      ? html`<${Lines} pieces=${of.pieces} earlier=${here.filter(({ cell }) => cell === null)} mine=${mine} change=${change} />`
      : html`<${Notebook} id=${id} path=${path} cells=${of.notebook} commented=${(number) => onCell(here, mine, number)}
          lines=${(cell, number) => html`<${Cell} cell=${number} of=${cell} earlier=${here}
          mine=${mine} change=${change} />`} />`}
    ${of.is_cut && of.notebook === null && html`<p class="nothing">Only the beginning is shown.</p>`}
    ${elsewhere}
    ${mine !== null && html`<p class="keys">On a line's number: <kbd>j</kbd> <kbd>k</kbd> choose a line, <kbd>Enter</kbd> comments on it, <kbd>Esc</kbd> goes
      back to the line, <kbd>n</kbd> <kbd>p</kbd> go to the next and previous comment.</p>`}`;
}
