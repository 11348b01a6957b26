// What a student changed since the attempt before: both texts side by side, line by line.
import { Component, createRef, html } from "../../static/html.js";
import { ask } from "./api.js";
import { visible } from "./text.js";

// Props: id (of the later attempt). Keys: n and p go to the next and the previous change.
export class Changes extends Component {
  state = { found: null, error: null };
  table = createRef();
  at = -1; // number of the change that is in focus

  async componentDidMount() {
    try {
      this.setState({ found: await ask(`changes/${encodeURIComponent(this.props.id)}`) }, () => this.table.current?.focus());
    } catch (error) {
      this.setState({ error: error.message });
    }
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

  render(_, { found, error }) {
    return html`<div class="changes">
      ${error && html`<p class="notice bad" role="alert">${visible(error)}</p>`}
      ${found?.rows.length === 0 && html`<p class="nothing">Nothing changed since the attempt before.</p>`}
      ${found?.rows.length > 0 && html`<div class="solution" tabindex="0" ref=${this.table} onKeyDown=${this.onKey}
          aria-label="Changes since the attempt before"><table>
        <thead><tr><th></th><th>The attempt before</th><th></th><th>This attempt</th></tr></thead>
        <tbody>${found.rows.map((row, index) => this.row(row, found.rows[index - 1]))}</tbody></table></div>
        <p class="keys"><kbd>n</kbd> <kbd>p</kbd> go to the next and previous change.</p>`}
      ${found?.is_cut && html`<p class="nothing">Only the beginning is compared.</p>`}
    </div>`;
  }
}
