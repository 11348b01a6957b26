// The queues of the broker.
import { html } from "../html.js";
import { VHOST, name, number, perSecond, size, tags } from "./cells.js";
import { DeclareQueue } from "./declare.js";
import { show } from "./page.js";

// A queue that holds messages and has no consumer is marked, in words too. A stream keeps them in any case.
function consumers(value, cell) {
  if (value || !cell("ready") || cell("type") === "stream") return number(value);
  return html`<span class="warn" title="Messages wait, and nobody consumes them">none</span>`;
}

show({
  topic: "queues", title: "Queues", one: "queue", many: "queues", keys: 2, details: async () => (await import("./queue.js")).QueueDetails,
  Declare: DeclareQueue,
  sort: ["-messages"],
  hint: "name, or ready>0 consumers=0",
  columns: [
    { name: "name", title: "Name", draw: name }, VHOST,
    { name: "type", title: "Type", from: 2 },
    { name: "features", title: "Features", from: 3, draw: tags },
    { name: "policy", title: "Policy", from: 4 },
    { name: "ready", title: "Ready", kind: "number", draw: number },
    { name: "unacked", title: "Unacked", kind: "number", from: 1, draw: number },
    { name: "messages", title: "Total", kind: "number", from: 2, draw: number },
    { name: "bytes", title: "Size", kind: "number", from: 4, draw: size },
    { name: "consumers", title: "Consumers", kind: "number", from: 1, draw: consumers },
    { name: "incoming", title: "In", kind: "number", from: 1, draw: perSecond, about: "Messages published to it a second" },
    { name: "delivered", title: "Out", kind: "number", from: 1, draw: perSecond, about: "Messages delivered and fetched a second" },
    { name: "acked", title: "Acks", kind: "number", from: 3, draw: perSecond, about: "Acknowledgements a second" },
  ],
  nothing: html`<div class="nothing"><p>There is no queue yet.</p><p>Start an app’s worker, which declares what its stages need:</p>
    <pre><code>rabbitry worker MODULE:APP</code></pre><p>It appears here within 5 s.</p></div>`,
});
