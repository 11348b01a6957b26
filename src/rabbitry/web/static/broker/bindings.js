// Binding and unbinding.
import { lacking } from "../access.js";
import { shown } from "../format.js";
import { Held } from "../held.js";
import { Component, html } from "../html.js";
import { Arguments, argumentsIn, OF_BINDING } from "./arguments.js";
import { name } from "./cells.js";
import { Members } from "./details.js";
import { Form } from "./form.js";

const PLACE = "../../exchanges/api"; // relative to the page's own api/

// Props: vhost, and either queue (to bind to an exchange), or source (an exchange to bind something to).
export class Bind extends Component {
  state = { isOpen: false, told: "" };

  request = (fields) => {
    const { vhost, queue, source } = this.props;
    const ends = source === undefined ? { source: fields.source.value, destination: queue, destination_type: "queue" }
      : { source, destination: fields.destination.value, destination_type: fields.destination_type.value };
    return { vhost, ...ends, routing_key: fields.routing_key.value, arguments: argumentsIn(fields, OF_BINDING) };
  };

  render({ source }, { isOpen, told }) {
    const reason = lacking("admin");
    if (reason) return html`<p><button type="button" disabled>Bind…</button></p><p class="zero">${reason}</p>`;
    return html`<p><button type="button" aria-expanded=${isOpen} onClick=${() => this.setState({ isOpen: !isOpen, told: "" })}>Bind…</button></p>
      <p role="status">${told}</p>
      ${isOpen && html`<${Form} label="Bind" path=${`${PLACE}/bind`} body=${this.request} onLeave=${() => this.setState({ isOpen: false })}
          onDone=${() => this.setState({ isOpen: false, told: "Bound." })}>
        ${source === undefined ? html`<label>Exchange <input name="source" required maxlength="255" autocomplete="off" spellcheck=${false} /></label>`
          : html`<label>To a <select name="destination_type"><option value="queue">queue</option><option value="exchange">exchange</option></select></label>
            <label>Its name <input name="destination" required maxlength="255" autocomplete="off" spellcheck=${false} /></label>`}
        <label>Routing key <input name="routing_key" maxlength="255" autocomplete="off" spellcheck=${false} /></label>
        <${Arguments} known=${OF_BINDING} />
      <//>`}`;
  }
}

// Props: of (rows of the topic `bindings` as objects), end ("source" or "destination": which one is named).
export function Bindings({ of, end }) {
  const keyOf = (each) => [each.source, each.destination_type, each.destination, each.properties_key].join("\0");
  return html`<${Held} as="ul" class="list" entries=${of} keyOf=${keyOf} draw=${(each, isGone) => html`<${Binding} key=${keyOf(each)} of=${each}
    end=${end} isGone=${isGone} />`} />`;
}

class Binding extends Component {
  state = { isOpen: false };

  render({ of, end, isGone }, { isOpen }) {
    const { vhost, source, destination, destination_type, properties_key, routing_key, arguments: given } = of;
    const about = `${shown(of[end] || "(default)")} with key ${shown(routing_key) || "none"}`;
    const reason = lacking("admin");
    return html`<li>${end === "destination" && html`<span class="zero">${destination_type}</span> `}${name(of[end])} <span class="zero">${routing_key === "" ? "without a key"
        : html`with key <code><bdi>${shown(routing_key)}</bdi></code>`}</span>
      ${isGone ? html` <span class="tag">gone</span>` : source !== "" && html` <button type="button" disabled=${reason !== null} title=${reason} aria-expanded=${isOpen} aria-label=${`Unbind ${about}`}
        onClick=${() => this.setState({ isOpen: !isOpen })}>Unbind…</button>`}
      <${Members} of=${given} />
      ${isOpen && !isGone && html`<${Form} kind="warning" label="Remove the binding" path=${`${PLACE}/unbind`} body=${() => ({ vhost, source, destination, destination_type, properties_key })}
          onDone=${() => this.setState({ isOpen: false })} onLeave=${() => this.setState({ isOpen: false })}>
        <p>Messages no longer go this way.</p>
      <//>`}</li>`;
  }
}
