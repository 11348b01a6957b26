// The first page: what flows, what needs attention, and the panels of the apps.
import { watchAttention } from "../attention.js";
import { Feed } from "../feed.js";
import { DASH, shown } from "../format.js";
import { Held } from "../held.js";
import { Component, html, render } from "../html.js";
import { addProvider } from "../palette.js";
import { reportLink, reportSource } from "../status.js";
import { panels } from "../views.js";
import { Chosen } from "./chosen.js";
import { Slots, grouped } from "./layout.js";
import { Picture, isIdle, nameOf } from "./picture.js";
import { Table } from "./table.js";
import { Trials } from "./trials.js";

const root = new URL("../../", import.meta.url);
const NOTHING = { nodes: new Map(), edges: new Map() };

// Nodes and edges of the topic `topology`, by their keys.
function read(value) {
  const [nodes, edges] = [new Map(), new Map()];
  for (const [key, member] of Object.entries(value ?? {})) {
    if (key.startsWith("e:")) edges.set(key, member);
    else if (key[1] === ":") nodes.set(key, member); // the others tell of the whole
  }
  return { nodes, edges };
}

const MODES = [["used", "What is in use"], ["moving", "Only what moves"], ["all", "Everything"]];

// Whether a thing is shown: retry queues and the like only while they hold or move messages, and queues of tokens, of which
// a limit may have hundreds, only with everything.
function isShown(node, mode, now) {
  if (mode === "all") return true;
  if (node.internal) return false;
  const lives = !isIdle(node, now) || node.ready + node.unacked > 0;
  return lives || (mode === "used" && !node.helper);
}

// What the mode and the words leave; beside what has the words in it, what that is directly connected with.
function filtered({ nodes, edges }, words, mode, now) {
  const text = words.trim().toLowerCase();
  const visible = new Map([...nodes].filter(([, node]) => isShown(node, mode, now)));
  const kept = new Set();
  for (const [key, node] of visible) {
    if (!text || `${node.name} ${node.host} ${node.kind}`.toLowerCase().includes(text)) kept.add(key);
  }
  if (text) {
    const found = new Set(kept);
    for (const { from, to } of edges.values()) {
      if (found.has(from)) kept.add(to);
      if (found.has(to)) kept.add(from);
    }
  }
  const left = new Map([...visible].filter(([key]) => kept.has(key)));
  return { nodes: left, edges: new Map([...edges].filter(([, { from, to }]) => left.has(from) && left.has(to))) };
}

const wanted = () => {
  try {
    return decodeURIComponent(location.hash.slice(1)) || null;
  } catch {
    return null;
  }
};

class Overview extends Component {
  state = { panels: [], topology: NOTHING, heard: false, leftOut: 0, edgesLeftOut: 0, by: null, at: null, broker: null, attention: null, ofApps: {}, source: null, reports: null, words: "", mode: "used", frozen: false, isTable: false, selected: wanted(), opened: new Set() };
  slots = new Slots();

  componentDidMount() {
    // A panel that fails is reported on the console and costs the others nothing.
    panels.forEach(async (path, index) => {
      const { default: panel } = await import(new URL(path, root).href);
      this.setState(({ panels: known }) => ({ panels: Object.assign([...known], { [index]: panel }) }));
    });
    this.feed = new Feed((link) => {
      this.link = link;
      this.tell();
    });
    this.feed.open("topology", {}, ({ value, at }) => {
      this.newest = { topology: read(value), heard: at !== undefined, leftOut: value?.left_out ?? 0, edgesLeftOut: value?.edges_left_out ?? 0, by: value?.by ?? null, at };
      if (!this.state.frozen) this.setState(this.newest);
      this.tell();
    });
    this.feed.open("attention", {}, ({ value, at }) => this.setState({ attention: at === undefined ? null : value }));
    this.feed.open("broker", {}, ({ value }) => this.setState({ broker: value }));
    this.feed.open("sources", {}, ({ value }) => {
      this.setState({ source: value?.management ?? null, reports: value?.telemetry ?? null });
      this.tell();
    });
    watchAttention((ofApps) => this.setState({ ofApps }));
    addEventListener("hashchange", () => this.setState({ selected: wanted() }));
    setInterval(() => this.tell(), 1000);
    addProvider(() => [...this.state.topology.nodes].map(([key, node]) => ({
      kind: node.kind, title: nameOf(node), url: new URL(`#${encodeURIComponent(key)}`, root).href,
    })));
  }

  tell() {
    if (this.link) reportLink(this.link, this.feed?.connection); // the first word comes before the constructor returns
    const { source, reports, by } = this.state;
    const at = this.newest?.at;
    if (source) reportSource(source.title, source, by ? source.at : at, this.feed);
    if (reports) reportSource(reports.title, reports, by ? at : reports.at, this.feed);
  }

  select = (key) => {
    if (key?.startsWith("g:")) {
      this.setState(({ opened }) => ({ opened: new Set(opened).add(key) }));
      return;
    }
    const selected = this.state.selected === key ? null : key;
    history.replaceState(null, "", selected ? `#${encodeURIComponent(selected)}` : location.pathname);
    this.setState({ selected });
  };

  close = () => {
    const { selected } = this.state;
    this.select(selected);
    document.querySelector(`[data-key="${CSS.escape(selected)}"]`)?.focus();
  };

  freeze = () => this.setState(({ frozen }) => ({ frozen: !frozen, ...(frozen ? this.newest : {}) }));

  // What is seen of the topology, and how it is drawn: the same objects until one of these changes.
  derive() {
    const { topology, words, mode, at, opened } = this.state;
    const given = [topology, words, mode, at, opened];
    if (this.derived?.given.every((each, place) => each === given[place])) return this.derived;
    const seen = filtered(topology, words, mode, at ?? 0);
    const drawn = grouped(seen.nodes, seen.edges, opened);
    this.slots.fit(drawn.nodes, drawn.edges);
    this.derived = { given, seen, drawn };
    return this.derived;
  }

  render(_, { panels: loaded, topology, heard, leftOut, edgesLeftOut, by, at, broker, attention, ofApps, source, words, mode, frozen, isTable, selected, opened }) {
    const now = at ?? 0;
    const { seen, drawn } = this.derive();
    const chosen = selected !== null && topology.nodes.has(selected) ? selected : null;
    const isFiltered = words !== "" || mode === "moving";
    return html`
      ${source?.todo && html`<${Missing} source=${source} by=${by} />`}
      <${Attention} found=${{ ...attention, ...ofApps }} alarms=${broker?.alarms ?? []} />
      ${heard && html`<${Trials} nodes=${topology.nodes} />`}
      <section class="panel flows" aria-labelledby="flows" data-frozen=${frozen ? "true" : null}>
        <div class="bar-top">
          <h2 id="flows">What flows</h2>
          <${Totals} broker=${broker} />
          <div class="tools">
            <button type="button" aria-haspopup="dialog" onClick=${openTotals}>History</button>
            <label><span>Filter</span><input type="search" value=${words} onInput=${(event) => this.setState({ words: event.currentTarget.value })}
              placeholder="name or machine" /></label>
            <label><span>Show</span><select value=${mode} onChange=${(event) => this.setState({ mode: event.currentTarget.value })}>
              ${MODES.map(([name, title]) => html`<option value=${name}>${title}</option>`)}</select></label>
            <button type="button" aria-pressed=${frozen ? "true" : "false"} onClick=${this.freeze}>${frozen ? "Go on" : "Freeze"}</button>
            ${opened.size > 0 && html`<button type="button" onClick=${() => this.setState({ opened: new Set() })}>Group again</button>`}
          </div>
        </div>
        ${leftOut > 0 && html`<p class="note">${leftOut.toLocaleString("en")} things that move nothing are left out.</p>`}
        ${edgesLeftOut > 0 && html`<p class="note">${edgesLeftOut.toLocaleString("en")} connections between things, those of the lowest rates, are left out.</p>`}
        <div class=${chosen ? "beside" : ""}>
          ${drawn.nodes.size > 0 ? html`<${Picture} drawn=${drawn} slots=${this.slots} now=${now} selected=${chosen} isFrozen=${frozen} onSelect=${this.select} />`
            : html`<p class="nothing">${!heard ? "Waiting for the broker's lists." : isFiltered ? "Nothing matches the filter." : by ? "No worker reports itself yet. Start one: rabbitry worker MODULE:APP" : "The broker has no queues yet."}</p>`}
          ${chosen && html`<${Chosen} id=${chosen} topology=${topology} onSelect=${this.select} onClose=${this.close} />`}
        </div>
        <details onToggle=${({ currentTarget }) => this.setState({ isTable: currentTarget.open })}><summary>The same as a table</summary>
          ${isTable && html`<${Table} topology=${seen} asked=${`${mode} ${words}`} onSelect=${this.select} now=${now} />`}</details>
      </section>
      ${loaded.map((Panel) => Panel && html`<${Panel} />`)}`;
  }
}

// The notice that the broker's lists are missing, and how to get them.
function Missing({ source, by }) {
  return html`<div class="notice bad" role="status"><div><p><b>The broker's lists are not shown:</b> ${shown(source.reason)}. ${source.todo}</p>
    ${by && html`<p>Shown is what workers report of themselves: their stages, and what flows between these. Missing are the messages that
      wait in each queue, other programs, and queues that no worker consumes.</p>`}</div></div>`;
}

// What is wrong, and what helps; nothing where nothing is known to be.
function Attention({ found, alarms }) {
  const rows = Object.entries(found).sort(([, a], [, b]) => b.bad - a.bad);
  if (rows.length + alarms.length === 0) return null;
  return html`<section class="panel" aria-labelledby="attention"><h2 id="attention">Needs attention</h2>
    ${alarms.length > 0 && html`<ul class="attention">${alarms.map(({ node, what }) => html`<li><b>Alarm</b> ${shown(node)} is short of ${what} and blocks publishers.
      <span class="note">Free some, or raise the limit.</span></li>`)}</ul>`}
    <${Held} as="ul" class="attention" entries=${rows} keyOf=${([title]) => title} draw=${([title, { bad, what, todo, link }]) => html`<li key=${title}>
      <b>${bad ? "Wrong" : "Note"}</b> <bdi>${shown(title)}</bdi>: ${shown(what)}.
      <span class="note">${link && html`<a href=${link}>Show them</a>, or `}${shown(todo)}</span></li>`} /></section>`;
}

// Opens the history of the broker's totals; its series are those of totals.py.
async function openTotals() {
  const { openHistory } = await import("../history/history.js");
  const format = (value) => (Number.isFinite(value) ? value.toLocaleString("en", { maximumFractionDigits: 1 }) : DASH);
  openHistory({ title: "The broker", app: "broker", subject: "", charts: [
    { title: "Messages", format, lines: [
      { name: "ready", title: "Ready", colour: "--cpu", key: "key-0" },
      { name: "unacked", title: "Unacknowledged", colour: "--memory", key: "key-1" },
    ] },
    { title: "Messages a second", format, lines: [
      { name: "publish", title: "Published", colour: "--rx", key: "key-2" },
      { name: "deliver_get", title: "Delivered", colour: "--tx", key: "key-3" },
      { name: "ack", title: "Acknowledged", colour: "--memory", key: "key-1" },
    ] },
  ] });
}

function Totals({ broker }) {
  if (!broker?.messages) return null;
  const { rates, messages, totals } = broker;
  const whole = (value) => Math.round(value ?? 0).toLocaleString("en");
  return html`<p class="totals">
    <span><b>${whole(rates.publish)}</b> published/s</span><span><b>${whole(rates.deliver_get)}</b> delivered/s</span>
    <span><b>${whole(messages.ready)}</b> ready</span><span><b>${whole(messages.unacked)}</b> unacknowledged</span>
    <span><b>${whole(totals.queues)}</b> queues</span><span><b>${whole(totals.connections)}</b> connections</span></p>`;
}

const page = document.getElementById("page");
page.replaceChildren();
render(html`<${Overview} />`, page);
