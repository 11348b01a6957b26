// What waits for a role's people, and the form in which they decide.
import { Component, html } from "../../static/html.js";
import { ask, decide, mark, time } from "./api.js";

const TITLES = { correct: "Correct", validate: "Validate", "send-back": "Send back", confirm: "Confirm" };

// Props: role, tick (grows each second), who, setWho.
export class Inbox extends Component {
  state = { items: null, open: null, error: null, said: null };

  componentDidMount() {
    this.load();
  }

  componentDidUpdate(before) {
    if (before.role !== this.props.role) this.setState({ items: null, open: null, error: null, said: null });
    if (before.tick !== this.props.tick || before.role !== this.props.role) this.load();
  }

  async load() {
    const role = this.props.role;
    try {
      const items = await ask(`inbox/${role}`);
      if (role === this.props.role) this.setState({ items, error: null });
    } catch (error) {
      if (role === this.props.role) this.setState({ error: error.message });
    }
  }

  async open(id) {
    try {
      this.setState({ open: await ask(`inbox/${this.props.role}/${encodeURIComponent(id)}`), said: null });
    } catch (error) {
      this.setState({ error: error.message });
    }
  }

  done = (said) => {
    this.setState({ open: null, said });
    this.load();
  };

  render({ role, who, setWho }, { items, open, error, said }) {
    return html`<section class="panel inbox" data-role=${role}>
      <h2>Waiting for the ${role}</h2>
      ${error && html`<p class="notice bad" role="alert">${error}</p>`}
      ${said && html`<p class="notice good" role="status">${said}</p>`}
      ${items !== null && items.length === 0 && html`<p class="nothing">Nothing waits here. What arrives at a role that
        runs with <code>--person</code> does.</p>`}
      ${items !== null && items.length > 0 && html`<div class="scroll"><table class="rows">
        <thead><tr><th>Student</th><th>Module</th><th>File</th><th>Mark</th><th>Arrived</th><th></th></tr></thead>
        <tbody>${items.map((item) => html`<tr key=${item.id} data-id=${item.id} class=${open?.id === item.id ? "open" : ""}>
          <td data-label="Student">${item.student}</td><td data-label="Module">${item.module || "–"}</td>
          <td data-label="File" class="long">${item.name || "–"}</td>
          <td data-label="Mark">${mark(item.mark, item.out_of)}</td>
          <td data-label="Arrived">${time(item.arrived_at)}${item.sent_back > 0 && html` <span class="tag">sent back ${item.sent_back}×</span>`}</td>
          <td><button type="button" onClick=${() => this.open(item.id)}>Open</button></td>
        </tr>`)}</tbody>
      </table></div>`}
      ${open && html`<${Decide} key=${open.id} item=${open} role=${role} who=${who} setWho=${setWho} done=${this.done} />`}
    </section>`;
  }
}

class Decide extends Component {
  state = { error: null, busy: false };

  async send(action, form) {
    const value = (name) => form.elements[name]?.value.trim() || null;
    const number = (name) => (value(name) === null ? null : Number(value(name)));
    const verdict = { action, who: value("who") ?? "" };
    if (action === "correct") Object.assign(verdict, { mark: number("mark"), out_of: number("out_of"), feedback: value("feedback") });
    if (action === "send-back") verdict.remark = value("remark") ?? "";
    this.props.setWho(verdict.who);
    this.setState({ busy: true, error: null });
    try {
      const { status } = await decide(this.props.role, this.props.item.id, verdict);
      this.props.done(`Student ${this.props.item.student}: ${action === "send-back" ? "sent back" : status}.`);
    } catch (error) {
      this.setState({ error: error.message, busy: false });
    }
  }

  onSubmit = (event) => {
    event.preventDefault();
    this.send(event.submitter.value, event.currentTarget);
  };

  render({ item, who }, { error, busy }) {
    return html`<form class="decide" onSubmit=${this.onSubmit}>
      <h3>Student ${item.student}, ${item.module || "no module"} <small>${item.id}</small></h3>
      <pre class="solution">${item.solution}</pre>
      ${item.is_cut && html`<p class="nothing">This is the beginning; the whole is longer.</p>`}
      ${item.remarks.map((remark) => html`<p class="notice warn"><b>Sent back:</b> ${remark}</p>`)}
      ${item.mark !== null && html`<p><b>Mark:</b> ${mark(item.mark, item.out_of)}</p>`}
      ${item.feedback !== null && html`<pre class="feedback">${item.feedback}</pre>`}
      ${item.actions.includes("correct") && html`<div class="fields">
        <label><span>Mark</span><input name="mark" type="number" min="0" step="any" /></label>
        <label><span>out of</span><input name="out_of" type="number" min="0" step="any" /></label>
        <label class="wide"><span>Feedback</span><textarea name="feedback" rows="4"></textarea></label>
      </div>`}
      ${item.actions.includes("send-back") && html`<div class="fields">
        <label class="wide"><span>Remark, where it goes back</span><textarea name="remark" rows="2"></textarea></label>
      </div>`}
      <div class="fields">
        <label><span>Your name</span><input name="who" value=${who} maxlength="100" autocomplete="name" /></label>
        ${item.actions.map((action) => html`<button type="submit" class=${action === "send-back" ? "" : "primary"} value=${action} disabled=${busy}>${TITLES[action] ?? action}</button>`)}
      </div>
      ${error && html`<p class="notice bad" role="alert">${error}</p>`}
    </form>`;
  }
}
