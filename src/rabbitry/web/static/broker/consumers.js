// The consumers of the broker's queues.
import { html } from "../html.js";
import { VHOST, name } from "./cells.js";
import { show } from "./page.js";

show({
  topic: "consumers", title: "Consumers", one: "consumer", many: "consumers", keys: 4, details: async () => (await import("./consumer.js")).ConsumerDetails,
  sort: ["queue"],
  hint: "queue, tag, or prefetch=0",
  columns: [
    { name: "queue", title: "Queue", draw: name }, VHOST,
    { name: "tag", title: "Tag", from: 1, draw: name },
    { name: "channel", title: "Channel", from: 2, isWide: true, draw: name },
    { name: "ack", title: "Acknowledges", from: 1 },
    { name: "prefetch", title: "Prefetch", kind: "number", draw: (value, cell) =>
      value || (cell("ack") === "manual" ? html`<span class="warn" title="It is sent all messages of the queue at once">no limit</span>` : html`<span class="zero">no limit</span>`) },
    { name: "state", title: "State" },
  ],
  nothing: html`<div class="nothing"><p>Nobody consumes a queue.</p><p>Start an app’s worker, which does:</p><pre><code>rabbitry worker MODULE:APP</code></pre></div>`,
});
