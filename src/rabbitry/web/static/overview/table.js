// The topology as a table.
import { shown } from "../format.js";
import { Held } from "../held.js";
import { html } from "../html.js";
import { NOT_TOLD, isIdle, nameOf, perSecond } from "./picture.js";

const MOST_ROWS = 300;
const byName = new Intl.Collator("en", { numeric: true });

// Props: topology, asked (which part of it was asked for), now, onSelect(key).
export function Table({ topology, asked, now, onSelect }) {
  const to = new Map();
  for (const edge of topology.edges.values()) to.set(edge.from, [...(to.get(edge.from) ?? []), nameOf(topology.nodes.get(edge.to) ?? { name: "?" })]);
  const rows = [...topology.nodes].sort(([, a], [, b]) => byName.compare(a.kind, b.kind) || byName.compare(a.name, b.name));
  return html`<div class="scroll" tabindex="0" role="region" aria-label="Topology as a table"><table class="rows">
    <caption class="unseen">Publishers, exchanges, queues and consumers</caption>
    <thead><tr>${["Kind", "Name", "Machine", "A second", "Messages", "State", "Goes to"].map((title) => html`<th scope="col">${title}</th>`)}</tr></thead>
    <${Held} as="tbody" asked=${asked} entries=${rows.slice(0, MOST_ROWS)} keyOf=${([key]) => key} draw=${([key, node]) => html`<tr key=${key}>
      <td data-label="Kind">${node.kind}</td>
      <td data-label="Name"><button type="button" class="link" onClick=${() => onSelect(key)}><bdi>${shown(nameOf(node))}</bdi></button></td>
      <td data-label="Machine">${node.host ? html`<bdi>${shown(node.host)}</bdi>` : "–"}</td>
      <td data-label="A second">${node.rate === null ? NOT_TOLD : perSecond(node.rate)}</td>
      <td data-label="Messages">${node.kind !== "queue" ? "–" : node.ready === null ? NOT_TOLD : (node.ready + node.unacked).toLocaleString("en")}</td>
      <td data-label="State">${node.gone ? "gone" : isIdle(node, now) ? "idle" : "moving"}</td>
      <td data-label="Goes to" class="long">${(to.get(key) ?? []).slice(0, 8).map((name) => html`<bdi>${shown(name)}</bdi> `)}${(to.get(key) ?? []).length > 8 && "…"}</td>
    </tr>`} /></table></div>
    ${rows.length > MOST_ROWS && html`<p class="nothing">and ${(rows.length - MOST_ROWS).toLocaleString("en")} more: use the filter</p>`}`;
}
