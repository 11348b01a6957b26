// The details of a consumer: how it consumes, and how its queue is.
import { html } from "../html.js";
import { number, perSecond } from "./cells.js";
import { Details, Figure, Link, Members, inVhost } from "./details.js";

// Props: of, virtual host, queue, tag and channel.
export function ConsumerDetails({ of: [vhost, queue, tag, channel] }) {
  const draw = ({ queue: row, consumers }) => {
    const found = consumers.find((each) => each.tag === tag && each.channel === channel);
    if (!found) return html`<p class="nothing">This consumer is gone. It was cancelled, or ended with its channel.</p>`;
    return html`
      <h3>Consumes</h3>
      <p><${Link} page="queues" of=${[vhost, queue]} /></p>
      <dl class="figures">
        <${Figure} term="Ready" value=${number(row.ready)} /><${Figure} term="Unacked" value=${number(row.unacked)} />
        <${Figure} term="Out" value=${perSecond(row.delivered)} />
      </dl>
      <h3>Over the channel</h3>
      <p><${Link} page="channels" of=${[channel]} /></p>
      <h3>Subscribed as</h3>
      <${Members} of=${{ Acknowledges: found.ack, Prefetch: found.prefetch ? String(found.prefetch) : "no limit", State: found.state }} />`;
  };
  return html`<${Details} topic="queue" params=${{ vhost, name: queue }} title=${tag} where=${inVhost(vhost)} draw=${draw}
    gone="This consumer is gone, and so is its queue." />`;
}
