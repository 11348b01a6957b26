// The exchanges of the broker.
import { html } from "../html.js";
import { VHOST, name, perSecond, tags } from "./cells.js";
import { DeclareExchange } from "./declare.js";
import { show } from "./page.js";

show({
  topic: "exchanges", title: "Exchanges", one: "exchange", many: "exchanges", keys: 2, details: async () => (await import("./exchange.js")).ExchangeDetails,
  Declare: DeclareExchange,
  sort: ["-incoming", "name"],
  hint: "name, or type=topic",
  columns: [
    { name: "name", title: "Name", draw: name }, { ...VHOST, from: 1 },
    { name: "type", title: "Type" },
    { name: "features", title: "Features", from: 1, draw: tags },
    { name: "policy", title: "Policy", from: 3 },
    { name: "incoming", title: "In", kind: "number", draw: perSecond, about: "Messages published to it a second" },
    { name: "outgoing", title: "Out", kind: "number", from: 1, draw: perSecond, about: "Messages routed on a second" },
  ],
  nothing: html`<p class="nothing">There is no exchange that this user may see: give the user a permission in a virtual host.</p>`,
});
