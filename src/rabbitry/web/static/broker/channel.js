// The details of a channel: what flows, what is in hand, and its consumers.
import { shown } from "../format.js";
import { html } from "../html.js";
import { number, perSecond } from "./cells.js";
import { Consumers, Details, Figure, Link, Members, inVhost } from "./details.js";

// Props: of, its name.
export function ChannelDetails({ of: [name] }) {
  const draw = ({ channel: row, connection, consumers }) => html`
    <p class="where">${inVhost(row.vhost)}, user <bdi>${shown(row.user)}</bdi></p>
    <dl class="figures">
      <${Figure} term="Published" value=${perSecond(row.publish)} /><${Figure} term="Delivered" value=${perSecond(row.delivered)} />
      <${Figure} term="Acks" value=${perSecond(row.acked)} /><${Figure} term="Unacked" value=${number(row.unacked)} />
      <${Figure} term="Unconfirmed" value=${number(row.unconfirmed)} /><${Figure} term="State" value=${shown(row.state)} />
    </dl>
    <h3>Opened as</h3>
    <${Members} of=${{ Mode: row.mode || "neither confirms nor a transaction", Prefetch: row.prefetch ? String(row.prefetch) : "no limit" }} />
    <h3>Connection</h3>
    <p>${connection ? html`<${Link} page="connections" of=${[connection]} />` : html`<span class="zero">The broker does not tell.</span>`}</p>
    <${Consumers} of=${consumers} isOfChannel=${true} nobody="None." />`;
  return html`<${Details} topic="channel" params=${{ name }} title=${name} draw=${draw} gone="This channel is gone. It was closed, or ended with its connection." />`;
}
