// The history of an address: each decision with its time and node.
import { query } from "../../static/ask.js";
import { count, shown } from "../../static/format.js";
import { Component, html } from "../../static/html.js";
import { Asked } from "./asked.js";
import { Address, Outcome, moment } from "./text.js";

const STATES = { queued: "It waits to be fetched.", sent: "A crawler has it, or it waits for one.", done: "It is done.", unknown: "It was never seen." };

// Props: url, words.
export class Why extends Component {
  state = { typed: this.props.url };

  componentDidUpdate(before) {
    if (before.url !== this.props.url) this.setState({ typed: this.props.url });
  }

  onSubmit = (event) => {
    event.preventDefault();
    const url = this.state.typed.trim();
    if (url) location.hash = `#/why/${encodeURIComponent(url)}`;
  };

  draw = ({ url, state, decisions = [], would, detail, next_at: nextAt, found_on: foundOn, depth, cut = 0 }) => html`
    <h3><bdi>${shown(url)}</bdi></h3>
    <p><b>${STATES[state] ?? shown(state)}</b>${nextAt ? ` It will be fetched at ${moment(nextAt)} at the earliest.` : ""}
      ${would && html` Now it would be: <${Outcome} name=${would} words=${this.props.words} />`}${detail && html` <bdi>${shown(detail)}</bdi>`}</p>
    ${foundOn && html`<p>Found on <${Address} url=${foundOn} />${Number.isInteger(depth) && `, ${count(depth, "link", "links")} from the start`}.</p>`}
    ${cut > 0 && html`<p class="note">${count(cut, "older decision is", "older decisions are")} left out.</p>`}
    <ol class="decisions">${decisions.map(({ at, outcome, node, detail }) => html`<li><time>${moment(at)}</time>
      <${Outcome} name=${outcome} words=${this.props.words} />${node && html` <span class="note">by ${shown(node)}</span>`}
      ${" "}<span class="note">${node && this.props.words?.[outcome] && "· "}${this.props.words?.[outcome]}</span>${detail && html`<p><bdi>${shown(detail)}</bdi></p>`}</li>`)}</ol>`;

  render({ url }, { typed }) {
    return html`<section class="panel" id="why"><h2>Why?</h2>
      <form class="one-line" onSubmit=${this.onSubmit}>
        <input type="text" inputmode="url" aria-label="Address" value=${typed} maxlength="10000" placeholder="https://example.org/"
          onInput=${(event) => this.setState({ typed: event.currentTarget.value })} />
        <button type="submit" class="primary">Show</button></form>
      ${url && html`<${Asked} path=${`why?${query({ url })}`} every=${3} draw=${this.draw} />`}
    </section>`;
  }
}
