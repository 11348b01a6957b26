// The details of an exchange.
import { shown } from "../format.js";
import { html } from "../html.js";
import { Bind } from "./bindings.js";
import { Changes } from "./changes.js";

const ACTIONS = [{ verb: "Delete", path: "delete", done: "Deleted.", about: "The exchange is deleted with its bindings. What is published to it then is an error." }];

// Props: of, virtual host and name.
export function ExchangeDetails({ of: [vhost, exchange] }) {
  const isOwn = exchange !== "" && !exchange.startsWith("amq.");
  return html`<h2><bdi>${shown(exchange) || "(default)"}</bdi></h2><p class="where">Virtual host <bdi>${shown(vhost)}</bdi></p>
    ${exchange === "" ? html`<p class="zero">Each queue is bound to it by its name.</p>` : html`<h3>Bind</h3><${Bind} vhost=${vhost} source=${exchange} />`}
    <h3>Delete</h3>
    ${isOwn ? html`<${Changes} thing="exchange" name=${exchange} data=${{ vhost, name: exchange }} actions=${ACTIONS} />`
      : html`<p class="zero">It is the broker's own, and can't be deleted.</p>`}`;
}
