// The details of a queue: what waits, what flows, who consumes, and what is bound to it.
import { html } from "../html.js";
import { Bind, Bindings } from "./bindings.js";
import { number, perSecond, size, tags } from "./cells.js";
import { Changes } from "./changes.js";
import { Consumers, Details, Figure, Members, Policy, inVhost, leftOut } from "./details.js";
import { Messages } from "./messages.js";

const ACTIONS = [
  { verb: "Purge", path: "purge", done: "Purged.", about: "All messages that are ready are dropped for good. Those that consumers hold stay." },
  { verb: "Delete", path: "delete", done: "Deleted.", about: "The queue is deleted with its messages and bindings. Its consumers are cancelled." },
];

// Props: of, virtual host and name.
export function QueueDetails({ of: [vhost, queue] }) {
  const draw = ({ queue: row, bindings, consumers, policy, arguments: given, left_out: rest }) => html`
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
    <${Members} of=${given} />
    <${Policy} ...${policy} />
    <${Consumers} of=${consumers} nobody=${`None. ${row.ready ? "What waits here stays until one comes." : ""}`} />
    <h3>Bindings</h3>
    <${Bindings} of=${bindings} end="source" />
    ${leftOut(rest, "bindings")}
    <${Bind} vhost=${vhost} queue=${queue} />
    <h3>Purge or delete</h3>
    <${Changes} thing="queue" name=${queue} data=${{ vhost, name: queue }} actions=${ACTIONS} />`;
  return html`<${Details} topic="queue" params=${{ vhost, name: queue }} title=${queue} where=${inVhost(vhost)} draw=${draw}
    gone="This queue is gone. It was deleted, or ended with its connection." />`;
}
