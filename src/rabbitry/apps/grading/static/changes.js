// What a student changed since the attempt before: both texts side by side, line by line.
import { Component, createRef, html } from "../../static/html.js";
import { ask, query } from "./api.js";
import { plain, visible } from "./text.js";

// Props: id (of the later attempt), path (of the file that is shown, in an archive). Keys: n and p go to the next and the
// previous change.
export class Changes extends Component {
  state = { found: null, error: null };
  table = createRef();
  at = -1; // number of the change that is in focus

  asked = 0; // number of the latest request: answers may overtake each other, and only the latest counts

  async componentDidMount() {
    if (!(await this.load(this.props.path))) return;
    const { files, path } = this.state.found ?? {};
    const isEqual = files?.length > 0 && !files.some((one) => one.path === path);
    if (!isEqual || (await this.load(files[0].path))) this.table.current?.focus();
  }

  componentDidUpdate(before) {
    if (before.path !== this.props.path) this.load(this.props.path);
  }

  // Loads the changes of a file; null for the first one that differs. Returns whether they are shown.
  async load(path) {
    const number = ++this.asked;
    let next;
    try {
      next = { found: await ask(`changes/${encodeURIComponent(this.props.id)}?${query({ path })}`), error: null };
    } catch (error) {
      next = { error: error.message };
    }
    if (number !== this.asked) return false;
    this.at = -1;
    return new Promise((done) => this.setState(next, () => done(true)));
  }

  onKey = (event) => {
    const step = { n: 1, p: -1 }[event.key];
    if (!step || event.ctrlKey || event.metaKey || event.altKey) return;
    const starts = [...this.table.current.querySelectorAll("[data-change]")];
    if (starts.length > 0) {
      this.at = Math.min(Math.max(this.at + step, 0), starts.length - 1);
      starts[this.at].focus();
    }
    event.preventDefault();
    event.stopPropagation();
  };

  row(row, before) {
    if (row.kind === "skipped") return html`<tr class="skipped"><td colspan="4">${row.skipped} equal lines</td></tr>`;
    const isFirst = row.kind === "changed" && before?.kind !== "changed";
    return html`<tr class=${row.kind} tabindex=${isFirst ? -1 : null} data-change=${isFirst ? "" : null}>
      <td class="line-number">${row.old}</td><td class=${row.kind === "changed" && row.old !== null ? "removed" : ""}><code>${visible(row.before)}</code></td>
      <td class="line-number">${row.new}</td><td class=${row.kind === "changed" && row.new !== null ? "added" : ""}><code>${visible(row.after)}</code></td>
    </tr>`;
  }

  // The files of an archive that differ. The shown one may be equal.
  files({ files, path, unlisted }) {
    const isEqual = path !== null && !files.some((one) => one.path === path);
    return html`<div class="fields"><label class="wide"><span>Files that differ</span><select onChange=${(event) => this.load(event.currentTarget.value)}>
        ${isEqual && html`<option value=${path} selected>${plain(path)} (equal)</option>`}
        ${files.map((one) => html`<option value=${one.path} selected=${one.path === path}>${plain(one.path)} (${one.change})</option>`)}
      </select></label></div>
      ${unlisted > 0 && html`<p class="nothing">${unlisted} further files differ: download both.</p>`}`;
  }

  render(_, { found, error }) {
    return html`<div class="changes">
      ${error && html`<p class="notice bad" role="alert">${visible(error)}</p>`}
      ${found?.files && this.files(found)}
      ${found?.is_binary && html`<p class="nothing">The file is not text: download both attempts.</p>`}
      ${found?.rows.length === 0 && !found.is_binary && html`<p class="nothing">Nothing changed ${found.path === null ? "" : "in this file "}since the attempt before.</p>`}
      ${found?.rows.length > 0 && html`<div class="solution" tabindex="0" ref=${this.table} onKeyDown=${this.onKey}
          aria-label="Changes since the attempt before"><table>
        <thead><tr><th></th><th>The attempt before</th><th></th><th>This attempt</th></tr></thead>
        <tbody>${found.rows.map((row, index) => this.row(row, found.rows[index - 1]))}</tbody></table></div>
        <p class="keys"><kbd>n</kbd> <kbd>p</kbd> go to the next and previous change.</p>`}
      ${found?.is_cut && html`<p class="nothing">Only the beginning is compared.</p>`}
    </div>`;
  }
}
