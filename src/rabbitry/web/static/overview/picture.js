// The picture of the topology: an SVG of columns. One thing takes the focus; arrow keys lead to the others, Enter opens one.
import { count, shown } from "../format.js";
import { Component, createRef, html } from "../html.js";
import { HEIGHT, KINDS, MOST, STEP, measure, path } from "./layout.js";
import { Moving } from "./moving.js";

const TITLES = { publisher: "Publishers", exchange: "Exchanges", queue: "Queues", consumer: "Consumers" };
const FADES_AFTER = 20; // seconds without a message
const MOST_MOVING = 60; // edges that move; the widest
const MOST_EDGES = 240; // edges that are drawn where there are many things
const BESIDE = 4 * STEP; // pixels that are drawn above and below what is in sight, and the steps in which that moves
const LETTER = 8.2; // pixels of a letter, at most of it

export const NOT_TOLD = "not told";

const WHOLE = new Intl.NumberFormat("en", { maximumFractionDigits: 0 }); // toLocaleString makes one at each call

export const perSecond = (value) => (value === 0 ? "0" : value < 9.95 ? value.toFixed(1) : WHOLE.format(value));

export const isIdle = (node, now) => node.at === null || now - node.at > FADES_AFTER;

// Pixels of an edge: as wide as the rate, in a scale that lets 1 and 10,000 a second both be seen, and in halves, since
// each change of it draws all around it anew.
export const wide = (rate) => (rate === null ? 1.5 : rate === 0 ? 1 : Math.round(Math.min(9, 1.5 + 1.8 * Math.log10(1 + rate)) * 2) / 2);

// Props: drawn {nodes, edges}, slots, now, selected, isFrozen, onSelect(key).
export class Picture extends Component {
  state = { width: 0, focused: null, from: 0, until: 0 };
  box = createRef();

  componentDidMount() {
    const measured = () => this.setState({ width: Math.floor(this.box.current.clientWidth) });
    this.watching = new ResizeObserver(measured);
    this.watching.observe(this.box.current);
    addEventListener("scroll", this.look, { passive: true });
    addEventListener("resize", this.look);
    measured();
  }

  shouldComponentUpdate(props, state) {
    return state !== this.state || ["drawn", "now", "selected", "isFrozen"].some((name) => props[name] !== this.props[name]);
  }

  componentDidUpdate() {
    this.look(); // what stands above it may have grown
  }

  componentWillUnmount() {
    this.watching.disconnect();
    removeEventListener("scroll", this.look);
    removeEventListener("resize", this.look);
  }

  // Finds which part of the picture is in sight: pixels from its top.
  look = () => {
    const { top } = this.box.current.getBoundingClientRect();
    const step = (value) => Math.floor(value / BESIDE) * BESIDE;
    const from = Math.max(0, step(-top - BESIDE));
    const until = Math.max(from, Math.min(this.box.current.clientHeight, step(innerHeight - top) + 2 * BESIDE));
    if (from !== this.state.from || until !== this.state.until) this.setState({ from, until });
  };

  // The next thing in the direction of an arrow key: in its column, or the nearest of the next column that has some.
  next(boxes, key, arrow) {
    const { slots } = this.props;
    const [kind, slot] = slots.places.get(key);
    const isVertical = arrow === "ArrowUp" || arrow === "ArrowDown";
    const step = arrow === "ArrowRight" || arrow === "ArrowDown" ? 1 : -1;
    if (isVertical) {
      const column = slots.columns.get(kind);
      for (let at = slot + step; at >= 0 && at < column.length; at += step) if (column[at]) return column[at];
      return null;
    }
    for (let at = KINDS.indexOf(kind) + step; KINDS[at]; at += step) {
      const near = slots.columns.get(KINDS[at]).map((other, place) => [other, Math.abs(place - slot)]).filter(([other]) => other);
      if (near.length) return near.reduce((a, b) => (b[1] < a[1] ? b : a))[0];
    }
    return null;
  }

  onKey = (event, boxes, key) => {
    if (event.key === "Enter" || event.key === " ") {
      event.preventDefault();
      this.props.onSelect(key);
      return;
    }
    const to = event.key.startsWith("Arrow") && this.next(boxes, key, event.key);
    if (!to) return;
    event.preventDefault();
    this.setState({ focused: to }, () => this.box.current.querySelector(`[data-key="${CSS.escape(to)}"]`)?.focus());
  };

  // The edges that are drawn: [key, edge, curve]. Of many, those that are in sight, and of these those that go the least far.
  edges(curves) {
    const { nodes, edges } = this.props.drawn;
    const { from, until } = this.state;
    const found = [...edges].filter(([key]) => curves.has(key)).map(([key, edge]) => [key, edge, curves.get(key)]);
    if (nodes.size <= MOST) return found;
    const away = (y) => Math.max(0, from - y, y - until);
    const seen = found.filter(([, , { y1, y2 }]) => Math.max(y1, y2) >= from && Math.min(y1, y2) <= until);
    const near = seen.map(([key, , { y1, y2 }]) => [key, away(y1) + away(y2)]).sort(([, a], [, b]) => a - b);
    const kept = new Set(near.slice(0, MOST_EDGES).map(([key]) => key));
    return seen.filter(([key]) => kept.has(key));
  }

  // The things that are drawn: [key, kind, slot]. Of many, those that are in sight, and those that have or take the focus.
  things(boxes, others) {
    const { slots, drawn: { nodes } } = this.props;
    const { from, until } = this.state;
    const found = KINDS.flatMap((kind) => slots.columns.get(kind).map((key, slot) => [key, kind, slot])).filter(([key]) => key && nodes.has(key));
    if (nodes.size <= MOST) return found;
    return found.filter(([key]) => others.includes(key) || (boxes.get(key).y + HEIGHT >= from && boxes.get(key).y <= until));
  }

  render({ drawn, slots, now, selected, isFrozen, onSelect }, { width, focused, from, until }) {
    const { nodes, edges } = drawn;
    if (width === 0) return html`<div class="topology" ref=${this.box}></div>`;
    const places = measure(slots, edges, width);
    const first = focused && nodes.has(focused) ? focused : KINDS.flatMap((kind) => slots.columns.get(kind)).find(Boolean);
    const seen = this.edges(places.curves);
    const touches = (edge) => edge.from === selected || edge.to === selected;
    const moving = seen.filter(([, { rate }]) => rate === null || rate > 0).sort(([, a], [, b]) => (b.rate ?? 0) - (a.rate ?? 0)).slice(0, MOST_MOVING)
      .map(([key, edge, curve]) => ({ key, curve, wide: wide(edge.rate), rate: edge.rate, isFaint: selected !== null && !touches(edge) }));
    const lively = new Set(moving.map(({ key }) => key));
    return html`<div class="topology" ref=${this.box} role="group" tabindex="-1"
        aria-label="Topology: publishers, exchanges, queues and consumers. Arrow keys go from one to another, Enter opens one. A table follows.">
      <svg width=${places.width} height=${places.height} viewBox=${`0 0 ${places.width} ${places.height}`} data-selected=${selected ? "true" : null}>
        ${KINDS.map((kind, index) => html`<text class="column" x=${2 + index * (places.box + places.gap)} y="18">${TITLES[kind]}</text>`)}
        <g class="edges" aria-hidden="true">
          ${seen.map(([key, edge, curve]) => html`<${Edge} key=${key} curve=${path(curve)} wide=${wide(edge.rate)}
            isIdle=${edge.rate === 0} isMoving=${lively.has(key)} isChosen=${selected ? touches(edge) : null} />`)}
        </g>
        ${this.things(places.boxes, [first, selected]).map(([key, kind, slot]) => html`<${Thing} key=${key} id=${key}
          node=${nodes.get(key)} place=${places.boxes.get(key)} host=${above(slots, nodes, kind, slot)} idle=${isIdle(nodes.get(key), now)}
          isFirst=${key === first} isSelected=${key === selected} onSelect=${onSelect} onKey=${(event) => this.onKey(event, places.boxes, key)} />`)}
      </svg>
      <${Moving} edges=${moving} from=${from} until=${until} width=${places.width} isFrozen=${isFrozen} />
    </div>`;
  }
}

// The machine, where the thing above is none of it.
function above(slots, nodes, kind, slot) {
  const column = slots.columns.get(kind);
  const { host } = nodes.get(column[slot]);
  return host && nodes.get(column[slot - 1])?.host !== host ? host : "";
}

class Edge extends Component {
  shouldComponentUpdate(props) {
    return ["curve", "wide", "isIdle", "isMoving", "isChosen"].some((name) => this.props[name] !== props[name]);
  }

  render({ curve, wide: width, isIdle: idle, isMoving, isChosen }) {
    return html`<path class="flow" d=${curve} stroke-width=${width} data-chosen=${isChosen === null ? null : String(isChosen)} data-idle=${idle ? "true" : null}
      data-moving=${isMoving ? "true" : null} />`;
  }
}

const cut = (text, pixels) => {
  const most = Math.max(3, Math.floor(pixels / LETTER));
  const letters = [...text];
  return letters.length > most ? `${letters.slice(0, most - 1).join("")}…` : text;
};

class Thing extends Component {
  shouldComponentUpdate(props) {
    return ["node", "idle", "host", "isFirst", "isSelected"].some((name) => this.props[name] !== props[name])
      || this.props.place.x !== props.place.x || this.props.place.y !== props.place.y || this.props.place.width !== props.place.width;
  }

  render({ id, node, place, host, idle, isFirst, isSelected, onSelect, onKey }) {
    const name = shown(nameOf(node));
    // Reports tell what is taken from a queue, and not what waits in it.
    const hasDepth = node.kind === "queue" && node.ready !== null;
    const flows = `${perSecond(node.kind === "queue" ? node.out : node.rate)}/s`;
    const figure = hasDepth ? count(node.ready + node.unacked, "message", "messages") : flows;
    const label = `${node.members ? "group of " : ""}${node.kind} ${name}${node.host ? ` on ${shown(node.host)}` : ""}, ${figure}${idle ? ", idle" : ""}`;
    const short = hasDepth ? WHOLE.format(node.ready + node.unacked) : flows;
    const fill = hasDepth ? depth(node.ready + node.unacked) : 0;
    return html`<g class="thing" role="button" tabindex=${isFirst ? "0" : "-1"} data-key=${id} data-kind=${node.kind} data-idle=${idle ? "true" : null}
        data-gone=${node.gone ? "true" : null} data-group=${node.members ? "true" : null} aria-label=${label} aria-pressed=${isSelected ? "true" : "false"}
        transform=${`translate(${place.x} ${place.y})`} onClick=${() => onSelect(id)} onKeyDown=${onKey}>
      <title>${label}</title>
      ${host && html`<text class="machine" y="-4">${cut(shown(host), place.width)}</text>`}
      <rect class="frame" width=${place.width} height=${HEIGHT} rx=${node.kind === "exchange" ? 16 : 7} />
      ${fill > 0 && html`<rect class="depth" x="1" y="1" width=${Math.max(4, (place.width - 2) * fill)} height=${HEIGHT - 2} rx="6" />`}
      <text class="name" x="10" y="21">${cut(name, place.width - 26 - short.length * LETTER)}</text>
      <text class="figure" x=${place.width - 9} y="21">${short}</text>
    </g>`;
  }
}

export const nameOf = (node) => (node.members ? `${node.name}… (${node.members})` : node.name || (node.kind === "exchange" ? "(default)" : "(no name)"));

// How full a queue is drawn: on a scale that shows both 1 and a million messages.
export const depth = (messages) => (messages <= 0 ? 0 : Math.min(1, Math.log10(1 + messages) / 6));
