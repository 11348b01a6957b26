// Declaring a queue or an exchange.
import { lacking } from "../access.js";
import { html } from "../html.js";
import { Arguments, argumentsIn, OF_EXCHANGE, OF_QUEUE, OF_STREAM } from "./arguments.js";
import { Form } from "./form.js";

const QUEUE_TYPES = { "": "as the virtual host has it", classic: "classic", quorum: "quorum", stream: "stream" };
const EXCHANGE_TYPES = ["direct", "fanout", "topic", "headers", "x-consistent-hash", "x-delayed-message"];

// Props: thing ("queue" or "exchange"), vhost (where it is declared if no other is typed), onDone(key).
function Declare({ thing, vhost, onDone }) {
  const isQueue = thing === "queue";
  const known = isQueue ? { ...OF_QUEUE, ...OF_STREAM } : OF_EXCHANGE;
  const reason = lacking("admin");
  const request = (fields) => {
    const found = { vhost: fields.vhost.value, name: fields.name.value, durable: fields.durable.checked, auto_delete: fields.auto_delete.checked };
    const given = argumentsIn(fields, known);
    if (!isQueue) return { ...found, type: fields.type.value.trim(), internal: fields.internal.checked, arguments: given };
    return { ...found, arguments: fields.type.value ? { ...given, "x-queue-type": fields.type.value } : given };
  };
  return html`<h2>Declare ${isQueue ? "a queue" : "an exchange"}</h2>
    ${reason ? html`<p class="zero">${reason}</p>` : html`<${Form} label=${`Declare the ${thing}`} path="declare" body=${request}
        onDone=${(asked) => onDone([asked.vhost, asked.name])}>
      <label>Name <input name="name" required maxlength="255" autocomplete="off" spellcheck=${false} /></label>
      <label>Virtual host <input name="vhost" required maxlength="255" autocomplete="off" spellcheck=${false} defaultValue=${vhost} /></label>
      ${isQueue ? html`<label>Type <select name="type">${Object.entries(QUEUE_TYPES).map(([name, title]) => html`<option value=${name}>${title}</option>`)}</select></label>`
        : html`<label>Type <input name="type" required maxlength="255" list="exchange-types" autocomplete="off" spellcheck=${false} defaultValue="direct" /></label>
          <datalist id="exchange-types">${EXCHANGE_TYPES.map((name) => html`<option value=${name} />`)}</datalist>`}
      <${Check} name="durable" isOn=${true}>Durable: it is there after a restart of the broker<//>
      <${Check} name="auto_delete">Auto-delete: it goes with its last ${isQueue ? "consumer" : "binding"}<//>
      ${!isQueue && html`<${Check} name="internal">Internal: only other exchanges publish to it<//>`}
      <${Arguments} known=${known} />
    <//>`}`;
}

function Check({ name, isOn = false, children }) {
  return html`<label class="check"><input type="checkbox" name=${name} defaultChecked=${isOn} /> <span>${children}</span></label>`;
}

export const DeclareQueue = (props) => html`<${Declare} thing="queue" ...${props} />`;
export const DeclareExchange = (props) => html`<${Declare} thing="exchange" ...${props} />`;
