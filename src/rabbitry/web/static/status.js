// The connections and sources that a page hangs on, shown in the header: their state, and how old what they say is.
import { clock, duration } from "./format.js";
import { html, render } from "./html.js";

const sources = new Map();
let drawing = false;

// Set the state of a source. `source`: {kind: good|busy|bad|unknown, text, title, at (performance.now() of its last
// word), button: {text, onClick}}; null removes it.
export function report(name, source) {
  if (source === null) sources.delete(name);
  else sources.set(name, source);
  draw();
}

export function reportLink(link, connection) {
  if (link.state === "live") report("WebSocket", { kind: "good", text: "connected", at: link.at });
  else if (link.state === "connecting") report("WebSocket", { kind: "busy", text: "connecting" });
  else {
    const seconds = Math.max(0, Math.ceil((link.retryAt - Date.now()) / 1000));
    const button = { text: "Try now", onClick: () => connection.retryNow() };
    report("WebSocket", { kind: "bad", text: `disconnected, next try in ${seconds} s`, title: link.reason, button });
  }
}

const KINDS = { idle: "unknown", connecting: "busy", live: "good", away: "bad", refused: "bad", missing: "bad" };

// A member of the feed's topic `sources`. `at`: the server's Unix time at which the source had what is shown, or null.
export function reportSource(name, { state, reason, where }, at, feed) {
  const heard = at == null ? undefined : performance.now() - 1000 * feed.age(at);
  report(name, { kind: KINDS[state] ?? "unknown", text: state, title: reason || where, at: heard });
}

const BROKER_KINDS = { connecting: "busy", connected: "good", away: "bad", refused: "bad" };

export function reportBroker(broker, link) {
  if (!broker) return;
  // While the page itself is cut off, what it knows of the broker is old.
  if (link.state !== "live") return report("Broker", { kind: "unknown", text: "unknown", title: broker.where });
  const text = broker.state === "connected" || broker.state === "connecting" ? broker.state : `${broker.state} since ${clock(broker.since)}`;
  report("Broker", { kind: BROKER_KINDS[broker.state], text, title: broker.where });
}

function Source({ name, kind, text, title, at, button }) {
  const age = at === undefined ? null : (performance.now() - at) / 1000;
  return html`<p class=${`state ${kind}`} title=${title}><span class="dot" aria-hidden="true"></span>
    <span><span class="state-name">${name}</span> <span role="status">${text}</span>
      ${age !== null && html` <span class="state-age" title="How old the newest of what is shown is">${duration(age)}<span class="state-old"> old</span></span>`}</span>
    ${button && html`<button type="button" onClick=${button.onClick}>${button.text}</button>`}</p>`;
}

function draw() {
  if (drawing) return;
  drawing = true;
  requestAnimationFrame(() => {
    drawing = false;
    const place = document.getElementById("states");
    render([...sources].map(([name, source]) => html`<${Source} key=${name} name=${name} ...${source} />`), place);
  });
}

setInterval(draw, 1000); // ages grow
