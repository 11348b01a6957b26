// The whole page: what state it is in, and the cards.
import { Card } from "./card.js";
import { clock, count } from "./format.js";
import { Component, html } from "./html.js";

const ORDERS = {
  name: { title: "Name", key: null },
  cpu: { title: "CPU", key: (host) => host.latest(0) },
  memory: { title: "Memory", key: (host) => host.latest(1) },
  network: { title: "Network", key: (host) => (host.latest(2) ?? 0) + (host.latest(3) ?? 0) },
};
const byName = new Intl.Collator("en", { numeric: true });

// Props: store, connection.
export class Page extends Component {
  state = { filter: "", order: "name" };

  componentDidMount() {
    this.props.store.listen(() => this.setState({}));
  }

  filter = (event) => this.setState({ filter: event.currentTarget.value });
  order = (event) => this.setState({ order: event.currentTarget.value });

  hosts() {
    const words = this.state.filter.trim().toLowerCase();
    const key = ORDERS[this.state.order].key;
    const hosts = [...this.props.store.hosts.values()].filter((host) => host.name.toLowerCase().includes(words));
    return hosts.sort((a, b) => (key ? (key(b) ?? -1) - (key(a) ?? -1) : 0) || byName.compare(a.name, b.name));
  }

  render({ store, connection }, { filter, order }) {
    const all = [...store.hosts.values()];
    const stale = all.filter((host) => host.stale).length;
    const hosts = this.hosts();
    const density = all.length === 1 ? "one" : all.length <= 8 ? "few" : "many";
    return html`
      <header class="top">
        <div class="brand"><img src="static/icon.svg" alt="" width="28" height="28" /><h1>Rabbitry</h1>
          <a class="place" href="grading/">Assignments</a></div>
        <div class="states" role="status">
          <${LinkState} link=${store.link} connection=${connection} />
          <${BrokerState} broker=${store.broker} link=${store.link} />
        </div>
      </header>
      <main data-density=${density}>
        <${Notices} store=${store} />
        ${all.length === 0
          ? html`<${Empty} broker=${store.broker} />`
          : html`
              <div class="bar-top">
                <p class="totals">
                  <span><b>${all.length - stale}</b> ${all.length - stale === 1 ? "host" : "hosts"} live</span>
                  ${stale > 0 && html`<span class="totals-stale"><b>${stale}</b> silent</span>`}
                  <span class="per-second"><b>${store.rate === null ? "–" : store.rate.toFixed(store.rate < 9.95 ? 1 : 0)}</b> samples/s</span>
                </p>
                ${all.length > 1 &&
                html`<div class="tools">
                  <label><span>Find</span><input type="search" value=${filter} onInput=${this.filter} placeholder="host name" /></label>
                  <label><span>Order</span>
                    <select value=${order} onChange=${this.order}>
                      ${Object.entries(ORDERS).map(([name, { title }]) => html`<option value=${name}>${title}</option>`)}
                    </select>
                  </label>
                </div>`}
              </div>
              <div class="grid">
                ${hosts.map(
                  (host) => html`<${Card} key=${host.name} host=${host} version=${host.version} alone=${density === "one"}
                    height=${{ one: 170, few: 96, many: 64 }[density]} />`,
                )}
              </div>
              ${hosts.length === 0 && html`<p class="nothing">No host's name holds “${filter}”.</p>`}
            `}
      </main>
    `;
  }
}

function State({ kind, name, text, title, children }) {
  return html`<p class=${`state ${kind}`} title=${title}><span class="dot" aria-hidden="true"></span>
    <span><span class="state-name">${name}</span> ${text}</span>${children}</p>`;
}

function LinkState({ link, connection }) {
  if (link.state === "live") return html`<${State} kind="good" name="WebSocket" text="connected" />`;
  if (link.state === "connecting") return html`<${State} kind="busy" name="WebSocket" text="connecting" />`;
  const seconds = Math.max(0, Math.ceil((link.retryAt - Date.now()) / 1000));
  return html`<${State} kind="bad" name="WebSocket" text=${`disconnected, next try in ${seconds} s`} title=${link.reason}>
    <button type="button" onClick=${() => connection.retryNow()}>Try now</button>
  <//>`;
}

const BROKER_KINDS = { connecting: "busy", connected: "good", away: "bad", refused: "bad" };

function BrokerState({ broker, link }) {
  if (!broker) return null;
  const text = broker.state === "connected" || broker.state === "connecting" ? broker.state : `${broker.state} since ${clock(broker.since)}`;
  // While the page itself is cut off, what it knows of the broker is old.
  const kind = link.state === "live" ? BROKER_KINDS[broker.state] : "unknown";
  return html`<${State} kind=${kind} name="Broker" text=${link.state === "live" ? text : "unknown"} title=${broker.where} />`;
}

function Notices({ store }) {
  const { broker, unread, skipped, link } = store;
  const notices = [];
  if (link.state === "live" && broker?.state === "away") {
    notices.push(html`<p class="notice bad"><b>The broker is away</b> since ${clock(broker.since)}: ${broker.reason}.
      It is tried again by itself; until then you see the last values.</p>`);
  }
  if (link.state === "live" && broker?.state === "refused") {
    notices.push(html`<p class="notice bad"><b>The broker let us not in:</b> ${broker.reason}.
      This is not tried again. <code>rabbitry doctor</code> tells what to do; then start the dashboard anew.</p>`);
  }
  if (unread) {
    const who = unread.routing_key ? `with routing key “${unread.routing_key}”` : "without a routing key";
    notices.push(html`<p class="notice warn"><b>${count(unread.count, "message was", "messages were")} no sample.</b>
      ${" "}The last, ${who}, ${unread.reason}.</p>`);
  }
  if (skipped > 0) {
    notices.push(html`<p class="notice warn"><b>This page missed ${count(skipped, "sample", "samples")}</b>,
      because it was read too slowly; what you see is the newest.</p>`);
  }
  return notices;
}

function Empty({ broker }) {
  const where = broker?.where ?? "the broker";
  return html`
    <section class="empty">
      <img src="static/icon.svg" alt="" width="64" height="64" />
      <h2>Waiting for the first sample</h2>
      <p>Nothing has arrived from <code>${where}</code> yet.</p>
      <p>On each machine that you want to see here, run <code>rabbitry monitor publish</code>.
        If that runs already, <code>rabbitry doctor</code> finds out why nothing arrives.</p>
    </section>
  `;
}
