// The arguments of a queue, an exchange or a binding, under RabbitMQ's names.
import { Component, createRef, html } from "../html.js";

// Name → what it does, and what a value is: "number", "boolean" or "text".
export const OF_QUEUE = {
  "x-message-ttl": ["number", "Milliseconds that a message may wait before it is dropped or becomes a dead letter."],
  "x-expires": ["number", "Milliseconds without use after which the queue is deleted."],
  "x-max-length": ["number", "The most messages that may be ready."],
  "x-max-length-bytes": ["number", "The most bytes that the bodies of ready messages may have."],
  "x-overflow": ["text", "What a full queue does: drop-head, reject-publish or reject-publish-dlx."],
  "x-dead-letter-exchange": ["text", "The exchange to which dead letters go."],
  "x-dead-letter-routing-key": ["text", "The key of dead letters in place of their own."],
  "x-dead-letter-strategy": ["text", "Of a quorum queue: at-most-once or at-least-once."],
  "x-delivery-limit": ["number", "Of a quorum queue: deliveries after which a message is dropped or becomes a dead letter."],
  "x-max-priority": ["number", "Of a classic queue: the highest priority, 1 to 255; up to 10 is advised."],
  "x-single-active-consumer": ["boolean", "true: only one consumer at a time is served."],
  "x-queue-mode": ["text", "Of a classic queue: default, or lazy, which keeps messages on disk."],
  "x-queue-leader-locator": ["text", "Where the leader runs in a cluster: client-local or balanced."],
};
export const OF_STREAM = {
  "x-max-age": ["text", "Of a stream: how long messages are kept, such as 7D."],
};
export const OF_EXCHANGE = {
  "alternate-exchange": ["text", "The exchange to which messages go that can't be routed."],
  "x-delayed-type": ["text", "Of x-delayed-message: the type by which it routes, such as direct."],
  "hash-header": ["text", "Of x-consistent-hash: the header that is hashed in place of the key."],
  "hash-property": ["text", "Of x-consistent-hash: the property that is hashed: message_id, correlation_id or timestamp."],
};
export const OF_BINDING = {
  "x-match": ["text", "Of a headers exchange: all or any of the other arguments must match; all-with-x and any-with-x count those with x- too."],
};

function parsed(name, text, known) {
  const kind = known[name]?.[0];
  if (kind === "text") return text;
  let value = text;
  try {
    value = JSON.parse(text);
  } catch {
    // text without quotes
  }
  if (kind && typeof value !== kind) throw new Error(`${name} is ${kind === "number" ? "a number" : "true or false"}, and not “${text}”.`);
  return value;
}

// Returns the arguments that stand in a form's fields. Throws an Error for one that makes no sense.
export function argumentsIn(fields, known) {
  const typed = (kind) => [...fields].filter(({ name }) => name === kind).map(({ value }) => value);
  const values = typed("argument-value");
  const found = new Map();
  typed("argument-name").forEach((name, place) => {
    if (name === "" && values[place] === "") return;
    if (name === "") throw new Error(`The argument “${values[place]}” has no name.`);
    if (found.has(name)) throw new Error(`The argument ${name} stands there twice.`);
    found.set(name, parsed(name, values[place], known));
  });
  return Object.fromEntries(found);
}

let last = 0;

// Props: known.
export class Arguments extends Component {
  state = { rows: [] };
  id = `arguments-${++last}`;
  box = createRef();

  put = (place, change) => this.setState(({ rows }) => ({ rows: rows.map((row, at) => (at === place ? { ...row, ...change } : row)) }));
  add = () => this.setState(({ rows }) => ({ rows: [...rows, { id: ++last, name: "", value: "" }] }),
    () => this.box.current.querySelector(".argument:last-of-type input").focus());
  drop = (place) => this.setState(({ rows }) => ({ rows: rows.filter((_, at) => at !== place) }));

  render({ known }, { rows }) {
    return html`<fieldset ref=${this.box}><legend>Arguments</legend>
      <datalist id=${this.id}>${Object.entries(known).map(([name, [, hint]]) => html`<option value=${name} label=${hint} />`)}</datalist>
      ${rows.map(({ id, name, value }, place) => html`<div class="argument" key=${id}>
        <input name="argument-name" aria-label=${`Name of argument ${place + 1}`} list=${this.id} value=${name} autocomplete="off" spellcheck=${false} placeholder="name"
          onInput=${(event) => this.put(place, { name: event.currentTarget.value })} />
        <input name="argument-value" aria-label=${`Value of argument ${place + 1}`} aria-describedby=${`hint-${id}`} value=${value} autocomplete="off" spellcheck=${false} placeholder="value"
          onInput=${(event) => this.put(place, { value: event.currentTarget.value })} />
        <button type="button" aria-label=${`Remove argument ${place + 1}`} onClick=${() => this.drop(place)}>×</button>
        <p class="zero" id=${`hint-${id}`}>${Object.hasOwn(known, name) ? known[name][1] : "A number, true, false or JSON is taken as such, all else as text."}</p>
      </div>`)}
      <button type="button" onClick=${this.add}>Add an argument</button>
    </fieldset>`;
  }
}
