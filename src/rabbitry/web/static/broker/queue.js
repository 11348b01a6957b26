// The details of a queue: what waits, what flows, who consumes, and what is bound to it.
import { shown } from "../format.js";
import { Component, html } from "../html.js";
import { Bind, Bindings } from "./bindings.js";
import { number, perSecond, size, tags } from "./cells.js";
import { Changes } from "./changes.js";
import { feed } from "./live.js";
import { Messages } from "./messages.js";

const ACTIONS = [
  { verb: "Purge", path: "purge", done: "Purged.", about: "All messages that are ready are dropped for good. Those that consumers hold stay." },
  { verb: "Delete", path: "delete", done: "Deleted.", about: "The queue is deleted with its messages and bindings. Its consumers are cancelled." },
];

// Props: of, virtual host and name.
export class QueueDetails extends Component {
  state = { value: null };

  componentDidMount() {
    const [vhost, queue] = this.props.of;
    this.subscription = feed.open("queue", { vhost, name: queue }, ({ value, error }) => this.setState({ value: value ?? null, error }));
  }

  componentWillUnmount() {
    this.subscription.close();
  }

  render({ of: [vhost, queue] }, { value, error }) {
    const title = html`<h2><bdi>${shown(queue)}</bdi></h2><p class="where">Virtual host <bdi>${shown(vhost)}</bdi></p>`;
    if (error) return html`${title}<p class="nothing">${error}</p>`;
    if (!value?.state) return html`${title}<p class="nothing">Loading.</p>`;
    if (value.state === "missing") return html`${title}<p class="nothing">This queue is gone. It was deleted, or ended with its connection.</p>`;
    const { queue: row, bindings, consumers, policy, arguments: given } = value;
    return html`${title}
      <dl class="figures">
        <${Figure} term="Ready" value=${number(row.ready)} /><${Figure} term="Unacked" value=${number(row.unacked)} />
        <${Figure} term="Size" value=${size(row.bytes)} /><${Figure} term="In" value=${perSecond(row.incoming)} />
        <${Figure} term="Out" value=${perSecond(row.delivered)} /><${Figure} term="Acks" value=${perSecond(row.acked)} />
      </dl>
      <h3>Messages</h3>
      <${Messages} vhost=${vhost} queue=${queue} ready=${row.ready} type=${row.type}
        limit=${policy.definition["delivery-limit"] ?? given["x-delivery-limit"]} />
      <h3>Declared as</h3>
      <p><span class="tag">${row.type}</span> ${tags(row.features)}</p>
      <${Arguments} of=${given} />
      <h3>Policy</h3>
      ${policy.name ? html`<p><bdi>${shown(policy.name)}</bdi></p><${Arguments} of=${policy.definition} />` : html`<p class="zero">None applies.</p>`}
      <h3>Consumers</h3>
      ${consumers.length ? html`<ul class="list">${consumers.map((each) => html`<li><bdi>${shown(each.channel)}</bdi>
        <span class="zero"> tag <bdi>${shown(each.tag)}</bdi>, prefetch ${each.prefetch || "unlimited"}, ${each.ack}</span></li>`)}</ul>`
        : html`<p class="zero">None. ${row.ready ? "What waits here stays until one comes." : ""}</p>`}
      <h3>Bindings</h3>
      <${Bindings} of=${bindings} end="source" />
      <${Bind} vhost=${vhost} queue=${queue} />
      <h3>Purge or delete</h3>
      <${Changes} thing="queue" name=${queue} data=${{ vhost, name: queue }} actions=${ACTIONS} />`;
  }
}

function Figure({ term, value }) {
  return html`<div><dt>${term}</dt><dd>${value}</dd></div>`;
}

function Arguments({ of }) {
  const members = Object.entries(of);
  if (members.length === 0) return null;
  return html`<dl class="arguments">${members.map(([key, value]) => html`<div><dt><bdi>${shown(key)}</bdi></dt>
    <dd><bdi>${shown(typeof value === "string" ? value : JSON.stringify(value))}</bdi></dd></div>`)}</dl>`;
}
