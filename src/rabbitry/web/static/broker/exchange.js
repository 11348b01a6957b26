// The details of an exchange: what flows, and its bindings in both directions.
import { html } from "../html.js";
import { Bind, Bindings } from "./bindings.js";
import { perSecond, tags } from "./cells.js";
import { Changes } from "./changes.js";
import { Details, Figure, Members, Policy, inVhost, leftOut } from "./details.js";

const ACTIONS = [{ verb: "Delete", path: "delete", done: "Deleted.", about: "The exchange is deleted with its bindings. What is published to it then is an error." }];

// Props: of, virtual host and name.
export function ExchangeDetails({ of: [vhost, exchange] }) {
  const isOwn = exchange !== "" && !exchange.startsWith("amq.");
  const draw = ({ exchange: row, outgoing, incoming, left_out: rest, policy, arguments: given }) => html`
    <dl class="figures"><${Figure} term="In" value=${perSecond(row.incoming)} /><${Figure} term="Out" value=${perSecond(row.outgoing)} /></dl>
    <h3>Declared as</h3>
    <p><span class="tag">${row.type}</span> ${tags(row.features)}</p>
    <${Members} of=${given} />
    <${Policy} ...${policy} />
    ${exchange === "" ? html`<h3>Bindings</h3><p class="zero">Each queue is bound to it by its name.</p>` : html`
      <h3>Goes to</h3>
      ${outgoing.length ? html`<${Bindings} of=${outgoing} end="destination" />` : html`<p class="zero">Nothing is bound to it: what is published to it goes nowhere.</p>`}
      <${Bind} vhost=${vhost} source=${exchange} />
      ${incoming.length > 0 && html`<h3>Comes from</h3><${Bindings} of=${incoming} end="source" />`}
      ${leftOut(rest, "bindings")}`}
    <h3>Delete</h3>
    ${isOwn ? html`<${Changes} thing="exchange" name=${exchange} data=${{ vhost, name: exchange }} actions=${ACTIONS} />`
      : html`<p class="zero">It is the broker's own, and can't be deleted.</p>`}`;
  return html`<${Details} topic="exchange" params=${{ vhost, name: exchange }} title=${exchange || "(default)"} where=${inVhost(vhost)} draw=${draw}
    gone="This exchange is gone. It was deleted." />`;
}
