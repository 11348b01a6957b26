// The two connections that a page hangs on: its WebSocket, and the broker.
import { clock } from "./format.js";
import { html } from "./html.js";

function State({ kind, name, text, title, children }) {
  return html`<p class=${`state ${kind}`} title=${title}><span class="dot" aria-hidden="true"></span>
    <span><span class="state-name">${name}</span> ${text}</span>${children}</p>`;
}

export function LinkState({ link, connection }) {
  if (link.state === "live") return html`<${State} kind="good" name="WebSocket" text="connected" />`;
  if (link.state === "connecting") return html`<${State} kind="busy" name="WebSocket" text="connecting" />`;
  const seconds = Math.max(0, Math.ceil((link.retryAt - Date.now()) / 1000));
  return html`<${State} kind="bad" name="WebSocket" text=${`disconnected, next try in ${seconds} s`} title=${link.reason}>
    <button type="button" onClick=${() => connection.retryNow()}>Try now</button>
  <//>`;
}

const BROKER_KINDS = { connecting: "busy", connected: "good", away: "bad", refused: "bad" };

export function BrokerState({ broker, link }) {
  if (!broker) return null;
  const text = broker.state === "connected" || broker.state === "connecting" ? broker.state : `${broker.state} since ${clock(broker.since)}`;
  // While the page itself is cut off, what it knows of the broker is old.
  const kind = link.state === "live" ? BROKER_KINDS[broker.state] : "unknown";
  return html`<${State} kind=${kind} name="Broker" text=${link.state === "live" ? text : "unknown"} title=${broker.where} />`;
}
