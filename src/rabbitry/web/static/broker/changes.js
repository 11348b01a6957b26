// Changes that can't be undone, each confirmed by a name, typed.
import { lacking } from "../access.js";
import { shown } from "../format.js";
import { Component, html } from "../html.js";
import { Form } from "./form.js";

// Props: thing ("queue"), name, data (what names it to the server), actions [{verb, path, about, done, hasReason}].
export class Changes extends Component {
  state = { chosen: null, typed: "", told: "" };

  choose = (chosen) => this.setState({ chosen, typed: "", told: "" });

  // What can't be seen in a name can be typed as it is shown.
  isConfirmed = () => this.state.typed === this.props.name || this.state.typed === shown(this.props.name);

  render({ thing, name, data, actions }, { chosen, typed, told }) {
    const reason = lacking("admin");
    if (reason) return html`<p>${actions.map(({ verb }) => html`<button type="button" disabled>${verb}…</button> `)}</p>
      <p class="zero">${reason}</p>`;
    return html`<p>${actions.map((action) => html`<button type="button" aria-expanded=${action === chosen}
        onClick=${() => this.choose(action)}>${action.verb}…</button> `)} <a href="../audit/">Audit log</a></p>
      <p role="status">${told}</p>
      ${chosen && html`<${Form} key=${chosen.verb} kind="warning" label=${`${chosen.verb} the ${thing}`} path=${chosen.path} isReady=${this.isConfirmed()}
          body=${(fields) => ({ ...data, confirm: name, ...(chosen.hasReason && { reason: fields.reason.value.trim() }) })}
          onDone=${() => this.setState({ chosen: null, told: chosen.done })} onLeave=${() => this.choose(null)}>
        <p>${chosen.about}</p>
        ${chosen.hasReason && html`<label>Reason, which the client is told <input name="reason" maxlength="200" autocomplete="off" /></label>`}
        <label>Type the ${thing}'s name, <bdi><strong>${shown(name)}</strong></bdi>
          <input value=${typed} autocomplete="off" spellcheck=${false} onInput=${(event) => this.setState({ typed: event.currentTarget.value })} /></label>
      <//>`}`;
  }
}
