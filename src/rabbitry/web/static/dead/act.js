// The form that replays or drops dead letters, with a dry run.
import { lacking } from "../access.js";
import { post } from "../ask.js";
import { count, shown } from "../format.js";
import { Component, html } from "../html.js";
import { lookers } from "./looking.js";

// Props: action, selection, number (how many the page knows of), agreed, onEnd(), and for a replay body (an edited one) and
// blocked (why it can't be sent).
export class Act extends Component {
  state = { plan: null, typed: "", rate: "", isAsked: false, error: null };

  componentDidMount() {
    if (this.props.action === "replay") this.plan();
  }

  // A look that delivers the messages was agreed to meanwhile.
  componentDidUpdate(before) {
    if (this.props.action === "replay" && this.props.agreed && !before.agreed) this.plan();
  }

  plan = async () => {
    try {
      this.setState({ plan: await lookers(this.props.agreed)("dry-run", this.props.selection) });
    } catch (error) {
      this.setState({ error: error.message });
    }
  };

  queue = () => `${this.props.selection.app}.dead`;
  isConfirmed = () => this.state.typed === this.queue() || this.state.typed === shown(this.queue());
  reason = () => lacking(this.props.action === "drop" ? "admin" : "operator") || this.props.blocked;
  isReady = () => !this.state.isAsked && !this.reason() && (this.props.action === "replay" || this.isConfirmed());

  send = async (event) => {
    event.preventDefault();
    if (!this.isReady()) return;
    const { action, selection, number, body, onEnd } = this.props;
    const { rate, plan } = this.state;
    const more = action === "drop" ? { confirm: this.queue() } : { ...(rate ? { rate: Number(rate) } : {}), ...(body === undefined ? {} : { body }) };
    this.setState({ isAsked: true, error: null });
    try {
      await post(action, { ...selection, ...more, expected: plan?.whole ? plan.count : number });
      onEnd();
    } catch (error) {
      this.setState({ isAsked: false, error: error.message });
    }
  };

  render({ action, number, selection, onEnd }, { plan, typed, rate, isAsked, error }) {
    const some = count(number, "message", "messages");
    return html`<form class="warning" onSubmit=${this.send}>
      ${action === "drop" ? html`<p>${some} ${number === 1 ? "is" : "are"} dropped for good.</p>
        <label>Type the queue’s name, <bdi><strong>${shown(this.queue())}</strong></bdi>
          <input value=${typed} autocomplete="off" spellcheck=${false} onInput=${(event) => this.setState({ typed: event.currentTarget.value })} /></label>`
        : html`<${Plan} plan=${plan} />
        ${selection.mark === undefined && html`<label>Messages a second, at most <input class="short" type="number" min="1" max="1000000" step="1" value=${rate} placeholder="no limit"
          onInput=${(event) => this.setState({ rate: event.currentTarget.value })} /></label>`}`}
      ${this.reason() && html`<p>${this.reason()}</p>`}
      <p><button type="submit" disabled=${!this.isReady()}>${isAsked ? "Starting" : action === "drop" ? `Drop ${some}` : `Replay ${some}`}</button> <button type="button" onClick=${onEnd}>Leave it</button></p>
      ${error && html`<p class="failed" role="alert">${error}</p>`}
    </form>`;
  }
}

// The dry run: the messages that a replay would publish, by target.
function Plan({ plan }) {
  if (!plan) return html`<p role="status">Finding out where they go.</p>`;
  if (plan.fetches) return html`<p role="status">No dry run yet: this broker can’t tell where they go without a delivery. Look at them first, or replay them as they are.</p>`;
  return html`<div role="status" aria-label="Dry run"><p>Dry run: a replay publishes ${plan.whole ? "" : `, of the oldest ${plan.seen.toLocaleString("en")}, `}as a first attempt</p>
    <ul class="targets">${plan.targets.map(({ exchange, key, count: some, missing, consumers }) => html`<li><b>${some.toLocaleString("en")}</b> to ${exchange ? html`exchange <bdi>${shown(exchange)}</bdi> with key <bdi>${shown(key)}</bdi>` : html`queue <bdi>${shown(key)}</bdi>`}
      ${missing ? html`, <strong>which does not exist: they stay here</strong>` : consumers === 0 ? ", which nobody consumes now" : consumers > 0 ? `, which has ${count(consumers, "consumer", "consumers")}` : ""}</li>`)}</ul>
    ${plan.count === 0 && html`<p>Nothing: they are no longer there.</p>`}
    ${plan.others > 0 && html`<p>and ${plan.others.toLocaleString("en")} to further places.</p>`}</div>`;
}
