// The audit log: what was changed through the dashboard.
import { ask } from "../ask.js";
import { shown } from "../format.js";
import { Component, html, render } from "../html.js";

const COLUMNS = { at: "When", who: "Who", action: "What", vhost: "Virtual host", queue: "Queue", result: "Result" };

class Audit extends Component {
  state = { entries: null, error: null };

  componentDidMount() {
    this.load();
  }

  load = async () => {
    try {
      this.setState({ entries: await ask("entries"), error: null });
    } catch (error) {
      this.setState({ error: error.message });
    }
  };

  render(_, { entries, error }) {
    return html`<div class="audit">
      <p>What was changed through this dashboard, the newest first. <button type="button" onClick=${this.load}>Load again</button></p>
      ${error && html`<p class="failed" role="alert">${error}</p>`}
      ${entries?.length === 0 && html`<p class="nothing">Nothing was changed yet.</p>`}
      ${entries?.length > 0 && html`<div class="wide-table" tabindex="0" role="region" aria-label="Audit log"><table>
        <thead><tr>${Object.values(COLUMNS).map((title) => html`<th scope="col">${title}</th>`)}</tr></thead>
        <tbody>${entries.map((entry) => html`<tr>${Object.keys(COLUMNS).map((name) => html`<td><bdi>${
          name === "at" ? new Date(entry.at * 1000).toLocaleString() : shown(entry[name])}</bdi></td>`)}</tr>`)}</tbody></table></div>`}
    </div>`;
  }
}

const page = document.getElementById("page");
page.replaceChildren();
render(html`<${Audit} />`, page);
