// Queries to the keeper through the server: the latest answer with its age, or the reason for none.
import { ask } from "../../static/ask.js";
import { duration, shown } from "../../static/format.js";
import { Component, html } from "../../static/html.js";

const OLD = 5; // seconds after which an answer's age is coloured

// Props: path; every (seconds between two queries, 0 for a single one); draw(answer, {each, reload}).
export class Asked extends Component {
  state = { answer: null, each: 0, givenAt: 0, wrong: null };
  number = 0; // of the latest query: answers may overtake each other

  componentDidMount() {
    this.onVisible = () => document.hidden || this.load();
    document.addEventListener("visibilitychange", this.onVisible);
    this.loop();
  }

  componentDidUpdate(before) {
    if (before.path === this.props.path) return;
    this.setState({ answer: null, wrong: null });
    this.load();
  }

  componentWillUnmount() {
    this.isGone = true;
    clearTimeout(this.timer);
    document.removeEventListener("visibilitychange", this.onVisible);
  }

  async loop() {
    if (!document.hidden) await this.load();
    if (this.isGone || !this.props.every) return;
    this.timer = setTimeout(() => this.loop(), this.props.every * 1000);
  }

  load = async () => {
    const { path } = this.props;
    const number = ++this.number;
    const change = await this.asked(path);
    if (!this.isGone && number === this.number && path === this.props.path) this.setState(change);
  };

  async asked(path) {
    try {
      const { answer, each, at, now, missing } = await ask(path);
      if (missing) return { wrong: missing };
      return { answer, each, givenAt: performance.now() - (now - at) * 1000, wrong: null };
    } catch (error) {
      return { wrong: error.message };
    }
  }

  render({ draw }, { answer, each, givenAt, wrong }) {
    const age = (performance.now() - givenAt) / 1000;
    return html`
      ${wrong && html`<p class="notice warn" role="status">${shown(wrong)}</p>`}
      ${answer && draw(answer, { each, reload: this.load })}
      ${answer && html`<p class="age" data-old=${age > OLD}>The keeper's answer, ${age < 1 ? "just now" : `${duration(age)} ago`}.</p>`}
      ${!answer && !wrong && html`<p class="nothing">Asking the keeper …</p>`}`;
  }
}

export const command = (name, more = {}) => ask("command", {
  method: "POST",
  headers: { "Content-Type": "application/json" },
  body: JSON.stringify({ command: name, ...more }),
});

// The meanings of the outcomes, fetched once.
let known = null;
export const meanings = () => (known ??= ask("outcomes").catch(() => ((known = null), {})));
