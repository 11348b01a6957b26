// The whole page: what state it is in, and the cards.
import { Card } from "./card.js";
import { clock, count, shown } from "../../static/format.js";
import { Held } from "../../static/held.js";
import { Component, html } from "../../static/html.js";
import { labels } from "./twins.js";

const ORDERS = [
  { name: "name", title: "Name", key: () => 0 },
  { name: "cpu", title: "CPU", key: (host) => host.latest(0) },
  { name: "memory", title: "Memory", key: (host) => host.latest(1) },
  { name: "disk", title: "Disk", key: (host) => host.view.fullest?.percent },
  { name: "network", title: "Network", key: (host) => (host.latest(2) ?? 0) + (host.latest(3) ?? 0) },
  { name: "silence", title: "Silence", key: (host) => (host.stale ? host.silence : 0) },
];
const byName = new Intl.Collator("en", { numeric: true });

// Props: store.
export class Page extends Component {
  state = { filter: "", order: ORDERS[0], dismissed: new Set() };

  componentDidMount() {
    this.props.store.listen(() => this.setState({}));
  }

  filter = (event) => this.setState({ filter: event.currentTarget.value });
  order = (event) => this.setState({ order: ORDERS.find(({ name }) => name === event.currentTarget.value) });
  dismiss = (key) => this.setState(({ dismissed }) => ({ dismissed: new Set(dismissed).add(key) }));

  // The hosts that are looked for, in the order that is asked for: [host, what tells it from others of its name].
  rows(all) {
    const { filter, order } = this.state;
    const words = filter.trim().toLowerCase();
    const told = labels(all);
    const rows = all.map((host) => ({ host, label: told.get(host.id), rank: order.key(host) ?? -1 }));
    const found = words ? rows.filter(({ host, label }) => `${host.name} ${label}`.toLowerCase().includes(words)) : rows;
    return found.sort(
      (a, b) => b.rank - a.rank || byName.compare(a.host.name, b.host.name) || byName.compare(a.label, b.label),
    );
  }

  render({ store }, { filter, order, dismissed }) {
    const all = [...store.hosts.values()];
    const rows = this.rows(all);
    const density = all.length === 1 ? "one" : all.length <= 8 ? "few" : "many";
    const height = new Map([["one", 170], ["few", 96], ["many", 64]]).get(density);
    return html`
      <div class="machines" data-density=${density}>
        ${notices(store)
          .filter(({ key }) => !dismissed.has(key))
          .map((notice) => html`<${Notice} ...${notice} dismiss=${this.dismiss} />`)}
        ${all.length === 0
          ? html`<${Empty} broker=${store.broker} />`
          : html`
              <div class="bar-top">
                <${Totals} store=${store} all=${all} />
                ${all.length > 1 &&
                html`<div class="tools">
                  <label><span>Find</span><input type="search" value=${filter} onInput=${this.filter} placeholder="host name" /></label>
                  <label><span>Order</span>
                    <select value=${order.name} onChange=${this.order}>
                      ${ORDERS.map(({ name, title }) => html`<option value=${name}>${title}</option>`)}
                    </select>
                  </label>
                </div>`}
              </div>
              <${Held} as="div" class="grid" asked=${`${order.name} ${filter}`} entries=${rows} keyOf=${({ host }) => host.id}
                draw=${({ host, label }) => html`<${Card} key=${host.id} host=${host} label=${label} version=${host.version}
                  alone=${density === "one"} height=${height} />`} />
              ${rows.length === 0 && html`<p class="nothing">No host's name holds “${filter}”.</p>`}
            `}
      </div>
    `;
  }
}

function Totals({ store, all }) {
  const silent = all.filter((host) => host.stale).length;
  const { rate, unread, skipped } = store;
  return html`
    <p class="totals">
      <span><b>${all.length - silent}</b> ${all.length - silent === 1 ? "host" : "hosts"} live</span>
      ${silent > 0 && html`<span class="totals-warn"><b>${silent}</b> silent</span>`}
      <span class="per-second"><b>${rate === null ? "–" : rate.toFixed(rate < 9.95 ? 1 : 0)}</b> samples/s</span>
      ${unread && html`<span><b>${unread.count}</b> unreadable</span>`}
      ${skipped > 0 && html`<span><b>${skipped}</b> missed</span>`}
    </p>
  `;
}

// What is to be said above the cards. A notice that was dismissed stays away as long as its key is the same.
function notices({ broker, unread, skipped, link, trouble }) {
  const found = [];
  if (trouble) {
    found.push({ key: `trouble ${trouble}`, kind: "bad", children: html`<b>No live connection:</b> ${trouble}.` });
  }
  if (link.state === "live" && broker?.state === "away") {
    found.push({
      key: `away ${broker.since}`,
      kind: "bad",
      children: html`<b>The broker is away</b> since ${clock(broker.since)}: ${shown(broker.reason)}.
        It is tried again by itself; until then you see the last values.`,
    });
  }
  if (link.state === "live" && broker?.state === "refused") {
    found.push({
      key: "refused",
      kind: "bad",
      children: html`<b>The broker refused the connection:</b> ${shown(broker.reason)}. This is not tried again.${" "}
        <code>rabbitry doctor</code> tells what to do; then start the dashboard anew.`,
    });
  }
  if (unread) {
    const who = unread.routing_key ? `with routing key “${unread.routing_key}”` : "without a routing key";
    found.push({
      key: `unread ${unread.routing_key}`,
      kind: "warn",
      children: html`<b>${count(unread.count, "message was", "messages were")} no sample.</b>
        ${" "}The last, ${who}, ${shown(unread.reason)}.`,
    });
  }
  if (skipped > 0) {
    found.push({
      key: "skipped",
      kind: "warn",
      children: html`<b>This page missed ${count(skipped, "sample", "samples")}</b>,
        because it was read too slowly; what you see is the newest.`,
    });
  }
  return found.map((notice) => ({ ...notice, id: notice.key }));
}

function Notice({ id, kind, children, dismiss }) {
  return html`<div class=${`notice ${kind}`}><p>${children}</p>
    <button type="button" class="dismiss" aria-label="Dismiss" title="Dismiss" onClick=${() => dismiss(id)}>×</button>
  </div>`;
}

function Empty({ broker }) {
  const where = broker?.where ?? "the broker";
  return html`
    <section class="empty">
      <img src="../static/icon.svg" alt="" width="64" height="64" />
      <h2>Waiting for the first sample</h2>
      <p>Nothing has arrived from <code>${where}</code> yet.</p>
      <p>On each machine that you want to see here, run <code>rabbitry monitor publish</code>.
        If that runs already, <code>rabbitry doctor</code> finds out why nothing arrives.</p>
    </section>
  `;
}
