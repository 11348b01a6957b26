// The connections of the broker's clients.
import { html } from "../html.js";
import { VHOST, name, number, time, traffic } from "./cells.js";
import { show } from "./page.js";

show({
  topic: "connections", title: "Connections", one: "connection", many: "connections", keys: 1, details: async () => (await import("./connection.js")).ConnectionDetails,
  sort: ["-received", "name"],
  hint: "address, client, or state=blocked",
  columns: [
    { name: "client", title: "Client", draw: (value, cell) => name(value || cell("name")) },
    { name: "address", title: "Address", isWide: true }, VHOST,
    { name: "user", title: "User", from: 1, draw: name },
    { name: "state", title: "State" },
    { name: "protocol", title: "Protocol", from: 3 },
    { name: "channels", title: "Channels", kind: "number", from: 1, draw: number },
    { name: "received", title: "In", about: "Bytes a second from the client", kind: "number", from: 1, draw: traffic },
    { name: "sent", title: "Out", about: "Bytes a second to the client", kind: "number", from: 2, draw: traffic },
    { name: "since", title: "Since", from: 4, isWide: true, draw: time },
  ],
  nothing: html`<div class="nothing"><p>No program is connected.</p><p>Start an app’s worker, which connects:</p>
    <pre><code>rabbitry worker MODULE:APP</code></pre></div>`,
});
