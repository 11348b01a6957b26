// The card of one host: current values, short history, details, and the JSON as it arrived.
import { Chart } from "./chart.js";
import { DASH, bytes, count, duration, percent, rate, shown, shownJson } from "../../static/format.js";
import { Component, createRef, html } from "../../static/html.js";
import { isForeign } from "./sample.js";
import { LOST_AFTER } from "./store.js";

const BUSY = [
  { index: 0, colour: "--cpu", fill: "--cpu-fill" },
  { index: 1, colour: "--memory" },
];
const TRAFFIC = [
  { index: 2, colour: "--rx", fill: "--rx-fill" },
  { index: 3, colour: "--tx" },
];

// Cards off the screen are not drawn anew, so that hundreds of them cost nothing.
const seen = new IntersectionObserver(
  (entries) => entries.forEach(({ target, isIntersecting }) => target.card?.setState({ visible: isIntersecting })),
  { rootMargin: "200px" },
);

const FULL = 85; // percent of a file system from which on it is pointed out
const VERY_FULL = 95;
const USED = 90; // percent of the memory
const BUSY_FOR = 60; // samples of which the mean counts: a processor that is busy for a moment works as it should
const BUSY_FROM = 90; // percent
const SHOWN = 64; // rows of a list

// What the dashboard's history has of a machine, see web.py.
const HISTORY = [
  { title: "CPU, memory and disk", top: 100, format: percent, lines: [
    { name: "cpu", title: "CPU", colour: "--cpu", key: "key-0" },
    { name: "memory", title: "Memory", colour: "--memory", key: "key-1" },
    { name: "disk", title: "Fullest disk", colour: "--disk", key: "key-disk" },
  ] },
  { title: "Network", format: rate, lines: [
    { name: "received", title: "Received", colour: "--rx", key: "key-2" },
    { name: "sent", title: "Sent", colour: "--tx", key: "key-3" },
  ] },
];

// Props: host, label (what tells it from others of its name), version (of the host), height (of a chart), alone (it is
// the only one: its details are open).
export class Card extends Component {
  box = createRef();
  state = { visible: false, hover: null };

  componentDidMount() {
    this.box.current.card = this;
    seen.observe(this.box.current);
  }

  componentWillUnmount() {
    seen.unobserve(this.box.current);
  }

  shouldComponentUpdate(props, state) {
    if (state.visible !== this.state.visible || props.label !== this.props.label) return true;
    if (!state.visible) return false;
    const same = props.version === this.props.version && props.height === this.props.height;
    return !same || props.alone !== this.props.alone || state.hover !== this.state.hover;
  }

  hover = (hover) => {
    if (hover !== this.state.hover) this.setState({ hover });
  };

  open = async () => {
    const { host, label } = this.props;
    const { openHistory } = await import("../../static/history/history.js");
    openHistory({ title: label ? `${host.name}, ${label}` : host.name, app: "monitor", subject: host.id, charts: HISTORY });
  };

  render({ host, label, version, height, alone }, { visible, hover }) {
    const sample = host.view;
    const foreign = isForeign(sample);
    const warnings = warningsOf(host, sample);
    const level = ["bad", "warn"].find((each) => warnings.some((warning) => warning.level === each)) ?? "good";
    const who = [`host ${host.name}`, host.key && `routing key ${host.key}`, host.machine && `machine ${host.machine}`];
    return html`
      <article class=${`card ${level} ${host.stale ? "stale" : ""}`} ref=${this.box} data-host=${host.name} data-id=${host.id}
        aria-label=${label ? `${host.name}, ${label}` : host.name}>
        <header class="card-head">
          <span class="dot" aria-hidden="true"></span>
          <h2 title=${who.filter(Boolean).join(", ")}><button type="button" class="name" aria-haspopup="dialog" onClick=${this.open}>${host.name}</button>${label && html` <span class="twin">${label}</span>`}</h2>
          <p class="about">${about(sample)}</p>
          ${warnings.length > 0 &&
          html`<p class="warnings">
            ${warnings.map((warning) => html`<span class=${`badge ${warning.level}`} title=${warning.title}>${warning.text}</span>`)}
          </p>`}
        </header>
        ${foreign
          ? html`<p class="foreign">These messages hold no CPU, memory, disk or network values. Below is all of it.</p>`
          : html`
              <${Figures} sample=${sample} />
              <div class="charts" onClick=${this.open} title="Show the last hour and week">
                <${Plot} title="CPU and memory" host=${host} columns=${BUSY} names=${["CPU", "Memory"]} top=${100}
                  format=${percent} axis=${(value) => `${value} %`} height=${height} visible=${visible}
                  version=${version} hover=${hover} onHover=${this.hover} />
                <${Plot} title="Network" host=${host} columns=${TRAFFIC} names=${["Received", "Sent"]} top=${null}
                  format=${rate} axis=${rate} height=${height} visible=${visible}
                  version=${version} hover=${hover} onHover=${this.hover} />
              </div>
            `}
        <${Fold} title="Details" open=${alone || foreign} when=${hasDetails(sample)}
          content=${() => html`<${Details} sample=${sample} />`} />
        <${Fold} title="Raw JSON" open=${foreign} when=${true} content=${() => html`<${Raw} text=${shownJson(host.raw)} />`} />
      </article>
    `;
  }
}

function about(sample) {
  const parts = [sample.platform];
  if (sample.uptime !== null) parts.push(`up ${duration(sample.uptime)}`);
  if (sample.processes !== null) parts.push(count(sample.processes, "process", "processes"));
  return parts.filter(Boolean).join(" · ");
}

// What somebody should look at: silence, a file system that is nearly full, a clock that is wrong.
function warningsOf(host, sample) {
  const found = [];
  if (host.stale) {
    found.push({ level: host.silence > LOST_AFTER ? "bad" : "warn", text: `silent for ${duration(host.silence / 1000)}` });
  }
  if (sample.fullest && sample.fullest.percent >= FULL) {
    const { name, percent: full } = sample.fullest;
    found.push({ level: levelOf(full), text: name === "/" ? `disk ${percent(full)} full` : `${name} ${percent(full)} full` });
  }
  const memory = sample.memory?.percent ?? NaN;
  if (memory >= USED) found.push({ level: memory >= VERY_FULL ? "bad" : "warn", text: `memory ${percent(memory)} used` });
  const busy = host.series[0].slice(-BUSY_FOR);
  const mean = busy.reduce((sum, value) => sum + value, 0) / BUSY_FOR; // gaps count as idle
  if (mean >= BUSY_FROM && !host.stale) found.push({ level: "warn", text: `CPU ${percent(mean)} busy`, title: "mean of the last 60 samples" });
  if (typeof host.clock === "number") {
    const text = `clock ${duration(Math.abs(host.clock))} ${host.clock > 0 ? "ahead" : "behind"}`;
    found.push({ level: "warn", text, title: "by the clock of the machine that serves this page" });
  }
  return found;
}

function levelOf(full) {
  return full >= VERY_FULL ? "bad" : full >= FULL ? "warn" : "good";
}

// The values that matter most, as figures with a bar; a container's own below the machine's.
function Figures({ sample }) {
  const { cpu, memory, disk, container } = sample;
  const load = sample.load.slice(0, 3).map((value) => value.toFixed(2));
  return html`
    <dl class="figures">
      <${Figure} name="CPU" kind="cpu" value=${cpu}
        notes=${[load.length > 0 && `load ${load.join(" ")}`, container?.cpus && `container ${ofProcessors(container)}`]} />
      <${Figure} name="Memory" kind=${memory?.percent >= USED ? (memory.percent >= VERY_FULL ? "bad" : "warn") : "memory"} value=${memory?.percent ?? null}
        notes=${[used(memory), container?.memory && `container ${ofSpace(container.memory)}`]} />
      <${Figure} name="Disk" kind=${`disk ${levelOf(disk?.percent)}`} value=${disk?.percent ?? null} notes=${[used(disk)]} />
    </dl>
  `;
}

function Figure({ name, kind, value, notes }) {
  return html`
    <div class="figure">
      <dt>${name}</dt>
      <dd>
        <span class="value">${percent(value ?? NaN)}</span>
        <${Bar} kind=${kind} label=${name} percent=${value} />
        ${notes.filter(Boolean).map((note) => html`<span class="note">${note}</span>`)}
      </dd>
    </div>
  `;
}

function Bar({ kind, label, percent: value }) {
  const filled = Math.min(Math.max(value ?? 0, 0), 100);
  return html`
    <span class=${`bar ${kind}`} role="meter" aria-label=${label} aria-valuemin="0" aria-valuemax="100"
      aria-valuenow=${Math.round(filled)}><span style=${{ width: `${filled}%` }}></span></span>
  `;
}

function used(space) {
  if (!space || space.used === null || space.total === null) return "";
  return `${bytes(space.used)} of ${bytes(space.total)}`;
}

function ofSpace(space) {
  return space.total === null ? percent(space.percent) : `${percent(space.percent)} of ${bytes(space.total)}`;
}

function ofProcessors({ cpu, cpus }) {
  const number = `${Math.round(cpus * 100) / 100} ${cpus === 1 ? "CPU" : "CPUs"}`;
  return cpu === null ? number : `${percent(cpu)} of ${number}`;
}

// A chart with its legend, which shows the values under the pointer, else the latest.
function Plot(props) {
  const { title, host, columns, names, format, axis, hover } = props;
  const at = hover === null || host.times[hover] === undefined ? null : hover;
  const values = columns.map(({ index }) => (at === null ? host.latest(index) : host.series[index][at]) ?? NaN);
  const ago = at === null ? "" : `${duration(host.times.at(-1) - host.times[at])} before`;
  const label = `${title}, last three minutes; now ${names.map((name, i) => `${name} ${format(values[i])}`).join(", ")}`;
  return html`
    <section class="plot">
      <p class="legend">
        ${columns.map(
          ({ index }, i) => html`<span class=${`key key-${index}`}><span>${names[i]}</span> <b>${format(values[i])}</b></span>`,
        )}
        <span class="ago">${ago}</span>
      </p>
      <${Chart} ...${props} format=${axis} label=${label} />
    </section>
  `;
}

// Content that is made only while it is shown: by default where `open` says so, then as its reader wants it.
class Fold extends Component {
  state = { chosen: null };

  isOpen = () => this.state.chosen ?? this.props.open;

  toggled = (event) => {
    const { open } = event.currentTarget;
    if (open !== this.isOpen()) this.setState({ chosen: open }); // else it followed its default
  };

  render({ title, when, content }) {
    if (!when) return null;
    return html`
      <details open=${this.isOpen()} onToggle=${this.toggled}>
        <summary>${title}</summary>
        ${this.isOpen() && content()}
      </details>
    `;
  }
}

function hasDetails(sample) {
  const lists = [sample.cores, sample.net, sample.disks, sample.filesystems, sample.temperatures, sample.others];
  return sample.swap !== null || sample.container !== null || lists.some((list) => list.length > 0);
}

function Details({ sample }) {
  const { cores, swap, container } = sample;
  const rates = (rows) => rows.map(({ name, values }) => [shown(name), ...values.map((value) => rate(value ?? NaN))]);
  const spaces = sample.filesystems.map(({ name, space }) => [name, percent(space.percent), bytes(space.used ?? NaN), bytes(space.total ?? NaN)]);
  return html`
    <div class="details">
      ${cores.length > 0 &&
      html`<section>
        <h3>Cores</h3>
        <ul class="cores">
          ${cores.slice(0, SHOWN).map(
            (core, i) => html`<li><span class="core-name">${i}</span><${Bar} kind="cpu" label=${`Core ${i}`} percent=${core} />
              <span class="core-value">${percent(core)}</span></li>`,
          )}
        </ul>
        <${More} number=${cores.length - SHOWN} />
      </section>`}
      <${Table} title="Network" names=${["Interface", "Received", "Sent"]} rows=${rates(sample.net)} />
      <${Table} title="File systems" names=${["Mounted at", "Full", "Used", "Of"]} rows=${spaces} />
      <${Table} title="Disks" names=${["Device", "Read", "Written"]} rows=${rates(sample.disks)} />
      <${List} title="Container" items=${[
        ...(container?.cpus ? [["CPU", ofProcessors(container)]] : []),
        ...(container?.memory ? [["Memory", `${percent(container.memory.percent)} (${used(container.memory)})`]] : []),
      ]} />
      <${List} title="Temperatures" items=${sample.temperatures.map(([name, value]) => [name, `${value.toFixed(1)} °C`])} />
      <${List} title="More" items=${[
        ...(swap ? [["Swap", `${percent(swap.percent)} ${swap.total ? `(${used(swap)})` : ""}`]] : []),
        ...sample.others,
      ]} />
    </div>
  `;
}

// Rows of a name and texts.
function Table({ title, names, rows }) {
  if (rows.length === 0) return null;
  return html`
    <section>
      <h3>${title}</h3>
      <table>
        <thead><tr>${names.map((name) => html`<th scope="col">${name}</th>`)}</tr></thead>
        <tbody>
          ${rows.slice(0, SHOWN).map(
            ([name, ...values]) => html`<tr><th scope="row">${name || DASH}</th>${values.map((value) => html`<td>${value}</td>`)}</tr>`,
          )}
        </tbody>
      </table>
      <${More} number=${rows.length - SHOWN} />
    </section>
  `;
}

function List({ title, items }) {
  if (items.length === 0) return null;
  return html`
    <section>
      <h3>${title}</h3>
      <dl class="list">
        ${items.slice(0, SHOWN).map(([name, value]) => html`<div><dt>${name || DASH}</dt><dd>${value || DASH}</dd></div>`)}
      </dl>
      <${More} number=${items.length - SHOWN} />
    </section>
  `;
}

function More({ number }) {
  return number > 0 ? html`<p class="more">and ${number} more, in the raw JSON</p>` : null;
}

class Raw extends Component {
  box = createRef();

  // Text that somebody is selecting stays as it is until the selection is gone.
  shouldComponentUpdate() {
    const selection = document.getSelection();
    return selection.isCollapsed || !selection.containsNode(this.box.current, true);
  }

  render({ text }) {
    return html`<pre class="raw" ref=${this.box} tabindex="0" aria-label="Raw JSON">${text}</pre>`;
  }
}
