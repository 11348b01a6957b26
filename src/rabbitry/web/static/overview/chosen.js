// One thing of the topology: its figures, and what it is connected with.
import { duration, shown } from "../format.js";
import { Held } from "../held.js";
import { html } from "../html.js";
import { More } from "./last.js";
import { NOT_TOLD, nameOf, perSecond } from "./picture.js";

const words = { publisher: "Publisher", exchange: "Exchange", queue: "Queue", consumer: "Consumer" };

const flow = (rate) => (rate === null ? NOT_TOLD : `${perSecond(rate)} a second`);

function figures(node) {
  const found = [];
  if (node.vhost) found.push(["Virtual host", shown(node.vhost)]);
  if (node.host) found.push(["Machine", shown(node.host)]);
  if (node.type) found.push(["Type", node.type]);
  if (node.kind === "queue") {
    found.push(["Ready", node.ready === null ? NOT_TOLD : node.ready.toLocaleString("en")], ["Unacknowledged", node.unacked.toLocaleString("en")],
      ["Consumers", node.consumers.toLocaleString("en")], ["In", flow(node.rate)], ["Out", flow(node.out)]);
  } else if (node.kind === "exchange") {
    found.push(["In", flow(node.rate)], ["Out", flow(node.out)]);
  } else found.push([node.kind === "publisher" ? "Publishes" : "Is delivered", `${perSecond(node.rate)} a second`]);
  found.push(["Last message", node.at === null ? "none seen yet" : `${duration(Math.max(0, Date.now() / 1000 - node.at))} ago`]);
  return found;
}

function Links({ id, title, edges, end, topology, onSelect }) {
  const found = edges.filter((edge) => topology.nodes.has(edge[end]));
  if (found.length === 0) return null;
  found.sort((a, b) => (b.rate ?? 0) - (a.rate ?? 0));
  return html`<h4>${title}</h4><${Held} as="ul" asked=${id} entries=${found.slice(0, 50)} keyOf=${(edge) => edge[end]} draw=${(edge) => html`<li key=${edge[end]}>
    <button type="button" class="link" onClick=${() => onSelect(edge[end])}><bdi>${shown(nameOf(topology.nodes.get(edge[end])))}</bdi></button>
    <span class="note">${edge.rate === null ? "its share is not told" : `${perSecond(edge.rate)} a second`}
      ${edge.keys.filter(Boolean).length > 0 && html`, key <bdi>${edge.keys.map((key) => shown(key)).join(", ")}</bdi>`}</span></li>`} />
    ${found.length > 50 && html`<p class="note">and ${(found.length - 50).toLocaleString("en")} more</p>`}`;
}

// Props: id, topology, onSelect(key), onClose.
export function Chosen({ id, topology, onSelect, onClose }) {
  const node = topology.nodes.get(id);
  const edges = [...topology.edges.values()];
  return html`<aside class="chosen" aria-label=${`${words[node.kind]} ${shown(nameOf(node))}`} onKeyDown=${(event) => event.key === "Escape" && onClose()}>
    <div class="bar-top"><h3>${words[node.kind]} <bdi>${shown(nameOf(node))}</bdi></h3>
      <button type="button" onClick=${onClose}>Close</button></div>
    ${node.gone && html`<p class="note">It is gone.</p>`}
    ${node.untold && html`<p class="note">This broker does not tell which exchange it publishes to. RabbitMQ does with${" "}
      <code>management.rates_mode = detailed</code> in rabbitmq.conf.</p>`}
    <dl class="list">${figures(node).map(([name, value]) => html`<div><dt>${name}</dt><dd>${value}</dd></div>`)}</dl>
    <${Links} id=${id} title="From" edges=${edges.filter((edge) => edge.to === id)} end="from" topology=${topology} onSelect=${onSelect} />
    <${Links} id=${id} title="To" edges=${edges.filter((edge) => edge.from === id)} end="to" topology=${topology} onSelect=${onSelect} />
    <${More} node=${node} />
  </aside>`;
}
