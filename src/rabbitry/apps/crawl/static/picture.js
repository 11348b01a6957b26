// The picture: an SVG of columns. One entry has the focus; arrow keys move it, Enter opens the entry.
import { count, shown } from "../../static/format.js";
import { Component, createRef, html } from "../../static/html.js";
import { layout } from "./layout.js";
import { perSecond } from "./live.js";

const LETTER = 7.4; // the most pixels of a letter

// Props: live, selected, onSelect(entry).
export class Picture extends Component {
  state = { width: 0, focused: null };
  box = createRef();

  componentDidMount() {
    const measure = () => this.setState({ width: Math.floor(this.box.current.clientWidth) });
    this.watching = new ResizeObserver(measure);
    this.watching.observe(this.box.current);
    measure();
  }

  componentWillUnmount() {
    this.watching.disconnect();
  }

  // The nearest entry in the direction of an arrow key.
  next(places, current, key) {
    const centre = ({ x, y, width, height }) => [x + width / 2, y + height / 2];
    const [x, y] = centre(current);
    const sign = key === "ArrowRight" || key === "ArrowDown" ? 1 : -1;
    const isVertical = key === "ArrowUp" || key === "ArrowDown";
    let [best, least] = [null, Infinity];
    for (const place of places) {
      const [dx, dy] = centre(place).map((value, axis) => value - [x, y][axis]);
      const [along, aside] = isVertical ? [dy * sign, Math.abs(dx)] : [dx * sign, Math.abs(dy)];
      if (along > 1 && along + 3 * aside < least) [best, least] = [place, along + 3 * aside];
    }
    return best;
  }

  onKey = (event, places, place) => {
    if (event.key === "Enter" || event.key === " ") {
      event.preventDefault();
      this.props.onSelect(place.entry);
      return;
    }
    const to = event.key.startsWith("Arrow") && this.next(places, place, event.key);
    if (!to) return;
    event.preventDefault();
    this.setState({ focused: to.entry.key }, () => {
      this.box.current.querySelector(`[data-key="${CSS.escape(to.entry.key)}"]`)?.focus();
    });
  };

  render({ live, selected, onSelect }, { width, focused }) {
    if (width === 0) return html`<div class="picture" ref=${this.box}></div>`;
    const { height, broker, places } = layout(width, live.nodes.values());
    const stop = places.some(({ entry }) => entry.key === focused) ? focused : places[0]?.entry.key;
    return html`<div class="picture" ref=${this.box}>
      <svg width=${width} height=${height} viewBox=${`0 0 ${width} ${height}`} role="group"
        aria-label="Crawlers on the left, the broker in the middle, processors on the right. Arrow keys move between them.">
        ${places.map(({ entry, edge }) => edge && html`<${Edge} key=${entry.key} entry=${entry} edge=${edge} />`)}
        <${Broker} ...${broker} live=${live} />
        ${["crawler", "processor"].map((kind) => !places.some(({ entry }) => entry.kind === kind) &&
          html`<${Absent} kind=${kind} width=${width} broker=${broker} />`)}
        ${places.map((place) => html`<${Entry} key=${place.entry.key} ...${place} isSelected=${place.entry.key === selected}
          isStop=${place.entry.key === stop} onSelect=${onSelect} onFocus=${() => this.setState({ focused: place.entry.key })}
          onKey=${(event) => this.onKey(event, places, place)} />`)}
      </svg>
    </div>`;
  }
}

function Edge({ entry, edge }) {
  const wide = Math.min(1.5 + 2.6 * Math.log10(1 + entry.rate), 10);
  const speed = entry.rate === 0 ? 0 : entry.rate < 2 ? 1 : entry.rate < 20 ? 2 : 3;
  return html`<g class="edge" data-kind=${entry.kind} data-speed=${speed}>
    <path d=${edge} stroke-width=${wide.toFixed(1)} />${speed > 0 && html`<path class="moving" d=${edge} stroke-width="2" />`}
  </g>`;
}

function Broker({ x, y, width, height, live }) {
  const waiting = live.queues.proc?.messages;
  const middle = x + width / 2;
  const isAway = live.broker !== null && live.broker.state !== "connected";
  return html`<g class="broker" data-away=${isAway} role="img"
    aria-label=${`Broker, ${waiting === undefined ? "no pages wait" : count(waiting, "page waits", "pages wait")}`}>
    <title>${live.broker?.where ?? ""}</title>
    <rect x=${x} y=${y} width=${width} height=${height} rx="14" />
    <text x=${middle} y=${y + height / 2 - 12} class="name">broker</text>
    <text x=${middle} y=${y + height / 2 + 8} class="figure">${isAway ? live.broker.state : (waiting ?? 0).toLocaleString("en")}</text>
    ${!isAway && html`<text x=${middle} y=${y + height / 2 + 24} class="small">${width < 70 ? "waiting" : waiting === 1 ? "page waits" : "pages wait"}</text>`}
  </g>`;
}

function Absent({ kind, width, broker }) {
  const room = broker.x - 10;
  const x = kind === "crawler" ? 1 : width - room - 1;
  const y = broker.y + broker.height / 2 - 22;
  return html`<g class="absent"><rect x=${x} y=${y} width=${room} height="44" rx="10" />
    <text x=${x + room / 2} y=${y + 27}>${width < 480 ? "none" : `no ${kind} yet`}</text></g>`;
}

const cut = (text, letters) => {
  const all = [...text];
  return all.length <= letters ? text : `${all.slice(0, Math.max(letters - 1, 1)).join("")}…`;
};

function Entry({ entry, x, y, width, height, isLow, isSelected, isStop, onSelect, onFocus, onKey }) {
  const { name, kind, members, total, rate } = entry;
  const isGroup = members.length > 1;
  const counts = kind === "crawler" || kind === "processor";
  const title = isGroup ? `${shown(name)} ×${members.length}` : shown(name);
  const letters = Math.floor((width - 18) / LETTER);
  const both = `${total.toLocaleString("en")} · ${perSecond(rate)}/s`;
  const figures = !counts ? (isGroup ? "" : shown(kind)) : both.length <= letters + 1 ? both : `${perSecond(rate)}/s`;
  const what = isGroup ? `${count(members.length, kind, `${kind}s`)}, ${name}` : `${kind} ${name}`;
  const label = counts ? `${what}, ${count(total, "page", "pages")}, ${perSecond(rate)} a second` : what;
  return html`<g class="entry" data-kind=${kind} data-key=${entry.key} data-group=${isGroup} role="button" aria-label=${shown(label)}
    aria-pressed=${isSelected} tabindex=${isStop ? 0 : -1} onClick=${() => onSelect(entry)} onFocus=${onFocus} onKeyDown=${onKey}>
    <title>${shown(label)}</title>
    <rect x=${x} y=${y} width=${width} height=${height} rx="9" />
    <rect class="stripe" x=${x} y=${y + 5} width="4" height=${height - 10} rx="2" />
    ${isLow
      ? html`<text x=${x + 11} y=${y + height / 2 + 4.5} class="name">${cut(title, letters - (width < 130 ? 0 : figures.length))}</text>
          ${width >= 130 && html`<text x=${x + width - 8} y=${y + height / 2 + 4.5} class="small end">${figures}</text>`}`
      : html`<text x=${x + 11} y=${y + height / 2 - 3} class="name">${cut(title, letters)}</text>
          <text x=${x + 11} y=${y + height / 2 + 13} class="small">${cut(figures, letters + 1)}</text>`}
  </g>`;
}
