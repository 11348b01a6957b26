// The person's decisions that have not been sent: each with the seconds that are left, and a button to take it back.
import { Component, html } from "../../static/html.js";
import { ask, refused, takeBack } from "./api.js";
import { visible } from "./text.js";

const DONE = { correct: "corrected", validate: "validated", "send-back": "sent back", confirm: "confirmed" };
const SOON = 1000; // ms between two looks while something waits

// Props: role, stamp (changes with the inbox or a decision), done(said).
export class Unsent extends Component {
  state = { decisions: [], error: null, busy: null };
  asked = 0;
  isGone = false; // an answer may come after the person has left

  componentDidMount() {
    this.load();
  }

  componentWillUnmount() {
    clearTimeout(this.timer);
    this.isGone = true;
    this.asked = -1;
  }

  componentDidUpdate(before) {
    if (before.stamp !== this.props.stamp) this.load();
  }

  async load() {
    if (this.isGone || refused() !== null) return;
    clearTimeout(this.timer);
    const number = ++this.asked;
    try {
      const { decisions } = await ask(`unsent/${this.props.role}`);
      if (number !== this.asked) return;
      this.setState({ decisions });
      if (decisions.length > 0) this.timer = setTimeout(() => this.load(), SOON);
    } catch (error) {
      if (number === this.asked) this.setState({ error: `${error.message}.` });
    }
  }

  take = ({ item, id, student }) => async () => {
    this.setState({ busy: item, error: null });
    try {
      await takeBack(this.props.role, id);
      this.setState({ busy: null });
      this.props.done(`Student ${student}: taken back, and waits here again.`);
    } catch (error) {
      this.setState({ busy: null, error: `${error.message}.` });
    }
    this.load();
  };

  render(_, { decisions, error, busy }) {
    return html`<div class="unsent">
      ${error && html`<p class="notice bad" role="alert">${visible(error)}</p>`}
      ${decisions.length > 0 && html`<ul aria-label="Decisions that are not sent yet">
        ${decisions.map((one) => html`<li key=${one.item}><span>Student ${visible(one.student)}: ${DONE[one.action] ?? one.action},${" "}
          ${one.seconds > 0 ? html`sent in <b>${Math.ceil(one.seconds)} s</b>` : "not sent yet"}</span>
          <button type="button" disabled=${busy !== null} onClick=${this.take(one)}>Take back</button></li>`)}
      </ul>`}
    </div>`;
  }
}
