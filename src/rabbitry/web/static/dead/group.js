// A group of dead letters, which opens to its messages.
import { count, shown, time } from "../format.js";
import { Component, html } from "../html.js";
import { Act } from "./act.js";
import { Letter } from "./letter.js";
import { lookers } from "./looking.js";

// Props: group, given {vhost, app}, agreed, isBusy.
export class Group extends Component {
  state = { found: null, isAsked: false, isOpen: false, error: null, action: null };

  selection = () => {
    const { given, group: { stage, reason, kind } } = this.props;
    return { ...given, stage, reason, kind };
  };

  look = async (skip) => {
    this.setState({ isAsked: true, error: null });
    try {
      this.setState({ found: await lookers(this.props.agreed)("letters", { ...this.selection(), skip }) });
    } catch (error) {
      this.setState({ error: error.message });
    }
    this.setState({ isAsked: false });
  };

  toggle = (event) => {
    if (event.target !== event.currentTarget) return; // a message within it
    const { open } = event.currentTarget;
    this.setState({ isOpen: open });
    if (open && !this.state.found && !this.state.isAsked) this.look(0);
  };

  // Another look at the app may have found more or less of this group.
  componentDidUpdate(before) {
    if (before.group === this.props.group) return;
    if (this.state.isOpen) this.look(this.state.found?.skip ?? 0);
    else this.setState({ found: null });
  }

  act = (action) => this.setState({ action });

  render({ group, given, agreed, isBusy }, { found, isAsked, isOpen, error, action }) {
    const last = found ? found.skip + found.letters.length : 0;
    return html`<li><details class="group" onToggle=${this.toggle}>
      <summary><b class="count" aria-label=${count(group.count, "message", "messages")}>${group.count.toLocaleString("en")}</b>
        <span class="why"><span><span class="tag">${shown(group.reason || "no reason")}</span> ${group.stage ? html`in <bdi>${shown(group.stage)}</bdi>` : "in no stage"}</span>
          <bdi class="kind">${shown(group.kind) || "without an error"}</bdi></span>
        <span class="note when">${group.first === group.last ? time(group.last) : html`${time(group.first)} – ${time(group.last)}`}</span></summary>
      ${isOpen && html`<div class="inside">
        ${group.example !== group.kind && html`<p class="example"><bdi>${shown(group.example)}</bdi></p>`}
        <p class="tools"><button type="button" disabled=${isBusy} aria-expanded=${action === "replay" ? "true" : "false"} onClick=${() => this.act("replay")}>Replay this group…</button>
          <button type="button" disabled=${isBusy} aria-expanded=${action === "drop" ? "true" : "false"} onClick=${() => this.act("drop")}>Drop this group…</button></p>
        ${action && !isBusy && html`<${Act} key=${action} action=${action} selection=${this.selection()} number=${group.count} agreed=${agreed} onEnd=${() => this.act(null)} />`}
        ${error && html`<p class="failed" role="alert">${error}</p>`}
        ${found && html`<ol class="letters" start=${found.skip + 1}>${found.letters.map((letter) => html`<${Letter} key=${letter.mark} letter=${letter} given=${given} agreed=${agreed} isBusy=${isBusy} />`)}</ol>
          <p>${found.skip > 0 && html`<button type="button" disabled=${isAsked} onClick=${() => this.look(0)}>First</button> `}
            ${found.more && html`<button type="button" disabled=${isAsked} onClick=${() => this.look(last)}>Next</button>`}</p>`}
        ${isAsked && !found && html`<p class="note">Looking.</p>`}
      </div>`}
    </details></li>`;
  }
}
