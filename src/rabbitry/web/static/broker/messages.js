// Looking at the messages of a queue.
import { lacking } from "../access.js";
import { ask, post, query } from "../ask.js";
import { bytes, count, shown } from "../format.js";
import { Component, html } from "../html.js";
import { read, TEXT } from "./body.js";

// Props: vhost, queue, ready, type, limit (of deliveries, if it is known).
export class Messages extends Component {
  state = { found: null, isAsked: false, warns: false, error: null };

  async ask(asking) {
    this.setState({ isAsked: true, error: null });
    try {
      const found = await asking;
      this.setState(found.fetches ? { warns: true } : { found, warns: false });
    } catch (error) {
      this.setState({ error: error.message });
    }
    this.setState({ isAsked: false });
  }

  look = (offset) => this.ask(ask(`messages?${query({ vhost: this.props.vhost, name: this.props.queue, offset: String(offset) })}`));
  fetch = () => this.ask(post("messages", { vhost: this.props.vhost, name: this.props.queue }));

  render(props, { found, isAsked, warns, error }) {
    const reason = lacking("operator");
    if (reason) return html`<p><button type="button" disabled>Look at messages</button></p><p class="zero">${reason}</p>`;
    const [first, last] = found ? [found.offset + 1, found.offset + found.messages.length] : [0, 0];
    return html`<div class="messages">
      <p><button type="button" disabled=${isAsked} onClick=${() => this.look(0)}>${found ? "Look again" : "Look at messages"}</button></p>
      ${error && html`<p class="failed" role="alert">${error}</p>`}
      ${warns && html`<${Warning} ...${props} isAsked=${isAsked} onFetch=${this.fetch} onLeave=${() => this.setState({ warns: false })} />`}
      ${found && html`<p role="status">${found.messages.length ? `Messages ${first} to ${last}${found.ready === undefined ? "" : ` of ${found.ready.toLocaleString("en")}`}`
        : "No message is ready here."}</p>
        <ol class="list" start=${first}>${found.messages.map((message, place) => html`<${Message} key=${`${found.offset + place}`} ...${message} />`)}</ol>
        ${found.ready > last && found.messages.length > 0 && html`<button type="button" disabled=${isAsked} onClick=${() => this.look(last)}>Next</button>`}
        ${found.offset > 0 && html` <button type="button" disabled=${isAsked} onClick=${() => this.look(0)}>First</button>`}`}
    </div>`;
  }
}

function Warning({ type, limit, isAsked, onFetch, onLeave }) {
  return html`<div class="warning" role="group" aria-label="Before you look">
    <p>This broker can't show messages without a delivery. The first ones are fetched and put back, and after that they are marked as redelivered.</p>
    ${type === "quorum" && html`<p>This is a quorum queue: each look counts as a delivery of each message${limit === undefined ? "" : `, and after ${limit} the broker drops it or makes it a dead letter`}.</p>`}
    <p><button type="button" disabled=${isAsked} onClick=${onFetch}>Fetch and put back</button> <button type="button" onClick=${onLeave}>Leave it</button></p>
  </div>`;
}

// `note`: what is said beside the key.
export function Message({ payload, payload_encoding: encoding, payload_bytes: size, redelivered, exchange, routing_key: key, properties, shown_bytes: here, is_masked: isMasked, is_hidden: isHidden, note }) {
  const { headers = {}, ...others } = Array.isArray(properties) ? {} : properties;
  const { "x-death": deaths, ...rest } = headers;
  const body = read(payload, encoding, size, here, isHidden);
  return html`<li><details>
    <summary>${key === "" ? html`<span class="zero">no key</span>` : html`<bdi>${shown(key)}</bdi>`} <span class="zero">${bytes(size)}${note && `, ${note}`}</span>
      ${redelivered && html` <span class="tag">redelivered</span>`}</summary>
    <${Table} title="Properties" of=${{ exchange: exchange || "(default)", ...others }} />
    <${Table} title="Headers" of=${rest} />
    ${Array.isArray(deaths) && html`<${Deaths} of=${deaths} />`}
    <p class="kind">${body.kind}${body.isCut && `, the first ${count(body.length, "byte", "bytes")} of ${size.toLocaleString("en")}`}${isMasked && ", secrets masked"}</p>
    <pre tabindex="0" role="region" aria-label="Body">${body.text}</pre>
  </details></li>`;
}

export function Table({ title, of }) {
  const members = Object.entries(of);
  if (members.length === 0) return null;
  return html`<table><caption>${title}</caption><tbody>${members.map(([name, value]) => html`<tr><th scope="row"><bdi>${shown(name)}</bdi></th>
    <td><bdi>${shown(TEXT(value))}</bdi></td></tr>`)}</tbody></table>`;
}

const DEATH = { count: "Times", reason: "Reason", queue: "Queue", exchange: "Exchange", "routing-keys": "Keys", time: "First at" };

function Deaths({ of }) {
  const cell = (death, name) => (name === "time" && Number.isFinite(death.time) ? new Date(death.time * 1000).toLocaleString() : TEXT(death[name] ?? ""));
  return html`<div class="wide-table" tabindex="0" role="region" aria-label="Dead-lettered"><table><caption>Dead-lettered (x-death)</caption>
    <thead><tr>${Object.values(DEATH).map((title) => html`<th scope="col">${title}</th>`)}</tr></thead>
    <tbody>${of.map((death) => html`<tr>${Object.keys(DEATH).map((name) => html`<td><bdi>${shown(cell(Object(death), name))}</bdi></td>`)}</tr>`)}</tbody></table></div>`;
}
