// The nodes as a table, and one entry of the picture in detail.
import { bytes, count, duration, shown } from "../../static/format.js";
import { html } from "../../static/html.js";
import { perSecond } from "./live.js";

const MOST_ROWS = 400;
const silence = (node) => duration(Math.max(0, (performance.now() - node.seenAt) / 1000));

function Row({ node }) {
  return html`<tr>
    <td data-label="Kind">${node.kind}</td><td data-label="Id"><bdi>${shown(node.id)}</bdi></td>
    <td data-label="Machine">${node.host ? html`<bdi>${shown(node.host)}</bdi>` : "–"}</td>
    <td data-label="Pages">${node.total.toLocaleString("en")}</td><td data-label="A second">${perSecond(node.rate)}</td>
    <td data-label="Bytes">${node.wire ? bytes(node.wire) : "–"}</td><td data-label="Heard">${silence(node)} ago</td>
    <td data-label="Last" class="long"><bdi>${shown(node.last)}</bdi></td>
  </tr>`;
}

export function Table({ nodes, caption }) {
  const found = [...nodes].sort((a, b) => a.kind.localeCompare(b.kind) || a.id.localeCompare(b.id));
  return html`<div class="scroll" tabindex="0" role="region" aria-label=${caption}><table class="rows">
      <caption class="unseen">${caption}</caption>
      <thead><tr>${["Kind", "Id", "Machine", "Pages", "A second", "Bytes", "Heard", "Last"].map((title) =>
        html`<th scope="col">${title}</th>`)}</tr></thead>
      <tbody>${found.slice(0, MOST_ROWS).map((node) => html`<${Row} key=${node.key} node=${node} />`)}</tbody>
    </table></div>
    ${found.length > MOST_ROWS && html`<p class="nothing">and ${(found.length - MOST_ROWS).toLocaleString("en")} more</p>`}`;
}

// Props: entry (of the picture, as it was when chosen), live, onClose. Its nodes are shown as they are now.
export function Chosen({ entry, live, onClose }) {
  const nodes = entry.members.map((node) => live.nodes.get(node.key)).filter(Boolean);
  const name = entry.members.length > 1 ? `${count(entry.members.length, entry.kind, `${entry.kind}s`)}, ${entry.name}` : `${entry.kind} ${entry.name}`;
  return html`<section class="panel chosen" aria-live="off">
    <div class="bar-top"><h2><bdi>${shown(name)}</bdi></h2><button type="button" onClick=${onClose}>Close</button></div>
    ${nodes.length === 0 ? html`<p>No message for 20 s: it is gone.</p>` : html`<${Table} nodes=${nodes} caption=${shown(name)} />`}
  </section>`;
}
