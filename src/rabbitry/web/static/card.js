// The card of one host: current values, short history, details, and the JSON as it arrived.
import { Chart } from "./chart.js";
import { DASH, bytes, count, duration, percent, rate } from "./format.js";
import { Component, createRef, html } from "./html.js";
import { isForeign, view } from "./sample.js";

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

// Props: host, version (of the host), height (of a chart), alone (it is the only one: its details are open).
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
    if (state.visible !== this.state.visible) return true;
    if (!state.visible) return false;
    const same = props.version === this.props.version && props.height === this.props.height;
    return !same || props.alone !== this.props.alone || state.hover !== this.state.hover;
  }

  hover = (hover) => {
    if (hover !== this.state.hover) this.setState({ hover });
  };

  render({ host, version, height, alone }, { visible, hover }) {
    const sample = view(host.raw);
    const foreign = isForeign(sample);
    return html`
      <article class=${host.stale ? "card stale" : "card"} ref=${this.box} aria-label=${host.name} data-host=${host.name}>
        <header class="card-head">
          <span class="dot" aria-hidden="true"></span>
          <h2 title=${host.name}>${host.name}</h2>
          <${Age} host=${host} />
          <p class="about">${about(sample)}</p>
        </header>
        ${foreign
          ? html`<p class="foreign">These messages hold no CPU, memory, disk or network values. Below is all of it.</p>`
          : html`
              <${Figures} sample=${sample} />
              <div class="charts">
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
        <${Fold} title="Raw JSON" open=${foreign} when=${true} content=${() => html`<${Raw} text=${host.raw} />`} />
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

function Age({ host }) {
  if (!host.stale) return null;
  return html`<span class="age">silent for ${duration((performance.now() - host.seenAt) / 1000)}</span>`;
}

// The values that matter most, as figures with a bar.
function Figures({ sample }) {
  const load = sample.load.slice(0, 3).map((value) => value.toFixed(2));
  return html`
    <dl class="figures">
      <${Figure} name="CPU" kind="cpu" value=${sample.cpu} note=${load.length ? `load ${load.join("  ")}` : ""} />
      <${Figure} name="Memory" kind="memory" value=${sample.memory?.percent ?? null} note=${used(sample.memory)} />
      <${Figure} name="Disk" kind="disk" value=${sample.disk?.percent ?? null} note=${used(sample.disk)} />
    </dl>
  `;
}

function Figure({ name, kind, value, note }) {
  return html`
    <div class="figure">
      <dt>${name}</dt>
      <dd>
        <span class="value">${percent(value ?? NaN)}</span>
        <${Bar} kind=${kind} label=${name} percent=${value} />
        <span class="note">${note}</span>
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
      <${Chart} ...${props} name=${host.name} format=${axis} label=${label} />
    </section>
  `;
}

// Content that is made only while it is shown.
class Fold extends Component {
  constructor(props) {
    super(props);
    this.state = { open: props.open };
  }

  toggled = (event) => this.setState({ open: event.currentTarget.open });

  render({ title, when, content }, { open }) {
    if (!when) return null;
    return html`
      <details open=${open} onToggle=${this.toggled}>
        <summary>${title}</summary>
        ${open && content()}
      </details>
    `;
  }
}

function hasDetails(sample) {
  const lists = [sample.cores, sample.net, sample.disks, sample.temperatures, sample.others];
  return sample.swap !== null || lists.some((list) => list.length > 0);
}

function Details({ sample }) {
  return html`
    <div class="details">
      ${sample.cores.length > 0 &&
      html`<section>
        <h3>Cores</h3>
        <ul class="cores">
          ${sample.cores.map(
            (core, i) => html`<li><span class="core-name">${i}</span><${Bar} kind="cpu" label=${`Core ${i}`} percent=${core} />
              <span class="core-value">${percent(core)}</span></li>`,
          )}
        </ul>
      </section>`}
      <${Table} title="Network" names=${["Interface", "Received", "Sent"]} rows=${sample.net} />
      <${Table} title="Disks" names=${["Device", "Read", "Written"]} rows=${sample.disks} />
      <${List} title="More" items=${[
        ...(sample.swap ? [["Swap", `${percent(sample.swap.percent)} ${sample.swap.total ? `(${used(sample.swap)})` : ""}`]] : []),
        ...sample.temperatures.map(([name, value]) => [name, `${value.toFixed(1)} °C`]),
        ...sample.others,
      ]} />
    </div>
  `;
}

function Table({ title, names, rows }) {
  if (rows.length === 0) return null;
  return html`
    <section>
      <h3>${title}</h3>
      <table>
        <thead><tr>${names.map((name) => html`<th scope="col">${name}</th>`)}</tr></thead>
        <tbody>
          ${rows.map(
            ({ name, values }) => html`<tr key=${name}><th scope="row">${name}</th>
              ${values.map((value) => html`<td>${rate(value ?? NaN)}</td>`)}</tr>`,
          )}
        </tbody>
      </table>
    </section>
  `;
}

function List({ title, items }) {
  if (items.length === 0) return null;
  return html`
    <section>
      <h3>${title}</h3>
      <dl class="list">${items.map(([name, value]) => html`<div><dt>${name}</dt><dd>${value || DASH}</dd></div>`)}</dl>
    </section>
  `;
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
