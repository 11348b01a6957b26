// The channels of the broker's connections.
import { html } from "../html.js";
import { VHOST, name, number, perSecond } from "./cells.js";
import { show } from "./page.js";

show({
  topic: "channels", title: "Channels", one: "channel", many: "channels", keys: 1, details: async () => (await import("./channel.js")).ChannelDetails,
  sort: ["-unacked", "name"],
  hint: "name, or unacked>0",
  columns: [
    { name: "name", title: "Channel", isWide: true, draw: name }, VHOST,
    { name: "user", title: "User", from: 2, draw: name },
    { name: "mode", title: "Mode", from: 1, about: "Confirms, or a transaction" },
    { name: "state", title: "State", from: 3 },
    { name: "consumers", title: "Consumers", kind: "number", from: 1, draw: number },
    { name: "prefetch", title: "Prefetch", kind: "number", from: 2, draw: (value) => value || html`<span class="zero">no limit</span>` },
    { name: "unacked", title: "Unacked", kind: "number", draw: number },
    { name: "unconfirmed", title: "Unconfirmed", kind: "number", from: 3, draw: number },
    { name: "publish", title: "Published", kind: "number", draw: perSecond },
    { name: "delivered", title: "Delivered", kind: "number", from: 1, draw: perSecond },
    { name: "acked", title: "Acks", kind: "number", from: 3, draw: perSecond },
  ],
  nothing: html`<div class="nothing"><p>No channel is open.</p><p>Start an app’s worker, which opens some:</p>
    <pre><code>rabbitry worker MODULE:APP</code></pre></div>`,
});
