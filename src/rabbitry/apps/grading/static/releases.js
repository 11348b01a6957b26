// When the results of a module are released: what holds, what was set before, and the form of a coordinator.
import { Component, html } from "../../static/html.js";
import { ask, query, regrades, release, time } from "./api.js";
import { visible } from "./text.js";

// Props: module.
export class Releases extends Component {
  state = { found: null, until: "", remark: "", error: null, busy: false };

  componentDidMount() {
    this.load();
  }

  async load() {
    try {
      this.setState({ found: await ask(`releases?${query({ module: this.props.module })}`), error: null });
    } catch (error) {
      this.setState({ error: error.message });
    }
  }

  type = (name) => (event) => this.setState({ [name]: event.currentTarget.value });

  // The time of a field of type datetime-local, with the browser's offset from UTC; empty for now.
  send = async (event) => {
    event.preventDefault();
    const { until, remark } = this.state;
    const isHeld = event.submitter.value === "hold";
    this.setState({ busy: true, error: null });
    try {
      await release({ module: this.props.module, until: isHeld ? new Date(until).toISOString() : "", remark });
      this.setState({ until: "", remark: "", busy: false });
      await this.load();
    } catch (error) {
      this.setState({ error: error.message, busy: false });
    }
  };

  render(_, { found, until, remark, error, busy }) {
    const isHeld = found?.length > 0 && found[0].is_ahead;
    return html`<div class="releases"><h3>Release of the results</h3>
      ${error && html`<p class="notice bad" role="alert">${visible(error)}</p>`}
      ${found && html`<p role="status">${isHeld ? html`The results are held until <b>${time(found[0].until)}</b>: students see no mark and no feedback before.`
        : found.length > 0 ? html`The results were released ${time(found[0].until)}.` : "The results are not held: students see them as they are recorded."}</p>`}
      ${found?.length > 0 && html`<ol class="history">${found.map((one) => html`<li key=${one.id}>
        ${time(one.until)}, set by <i>${visible(one.who)}</i>, ${time(one.at)}: ${visible(one.remark)}</li>`)}</ol>`}
      ${regrades() && html`<form class="submit" onSubmit=${this.send}><div class="fields">
        <label><span>Hold until</span><input name="until" type="datetime-local" value=${until} onInput=${this.type("until")} /></label>
        <label><span>Reason</span><input name="remark" value=${remark} onInput=${this.type("remark")} required maxlength="1000" autocomplete="off" /></label>
        <button type="submit" value="hold" disabled=${busy || until === ""}>Hold the results</button>
        <button type="submit" value="release" disabled=${busy || !isHeld}>Release them now</button>
      </div></form>`}
    </div>`;
  }
}
