// A table of many rows, of which only those in sight are in the document.
import { Component, createRef, html } from "../html.js";
import { shown } from "../format.js";
import { Hold } from "../held.js";
import { feed } from "./live.js";

const HEIGHT = 34; // of a row, as in broker.css
const BESIDE = 40; // rows that are loaded above and below those in sight
const STEP = 20; // the window moves in steps, so that slow scrolling asks for few windows
const MARGIN = 2; // rows that are drawn above and below those in sight
const STRIDE = 5; // what is drawn moves in steps, too

// Props: topic, columns [{name, title, draw(value, row), kind, from, isWide}], where from
// 1 to 4 leaves a column out of narrow pages, sort, filter, chosen (key as JSON),
// onSort(sort), onChoose(row), onState(state), onHold(isHeld),
// empty (what is shown where there are no rows).
export class Rows extends Component {
  state = { table: {}, first: 0, count: 0, from: 0, until: 0, at: 0 };
  box = createRef();
  hold = new Hold(() => {
    this.setState({});
    this.props.onHold(this.hold.isHeld);
  });

  componentDidMount() {
    this.resized = new ResizeObserver(() => this.look());
    this.resized.observe(this.box.current);
    this.subscription = feed.open(this.props.topic, this.params(), (table) => {
      if (this.isOther && table !== this.state.table) {
        this.isOther = false;
        this.hold.forget();
      }
      this.setState({ table });
      this.props.onState(table);
    });
    this.look();
  }

  componentDidUpdate(before) {
    if (before.sort === this.props.sort && before.filter === this.props.filter) return;
    if (before.filter !== this.props.filter) this.box.current.scrollTop = 0;
    this.isOther = true; // another order or filter: until its rows come, the old ones stay
    this.subscription.change(this.params());
  }

  componentWillUnmount() {
    this.hold.close();
    this.resized.disconnect();
    this.subscription.close();
  }

  params(first = this.state.first, count = this.state.count) {
    return { sort: this.props.sort, filter: this.props.filter, first, count: Math.max(count, 2 * BESIDE) };
  }

  // Asks for another window where the rows in sight come near the end of the one that is here.
  look = () => {
    const box = this.box.current;
    if (!box) return;
    const top = Math.floor(box.scrollTop / HEIGHT);
    const seen = Math.ceil(box.clientHeight / HEIGHT) + 1;
    const first = Math.max(0, Math.floor((top - BESIDE) / STEP) * STEP);
    const count = Math.min(500, seen + 2 * BESIDE + STEP);
    const from = Math.floor((top - MARGIN) / STRIDE) * STRIDE;
    const until = from + seen + 2 * MARGIN + STRIDE;
    if (from !== this.state.from || until !== this.state.until) this.setState({ from, until });
    if (first === this.state.first && count === this.state.count) return;
    this.setState({ first, count });
    this.subscription?.change(this.params(first, count));
  };

  key = (event) => {
    if (event.target !== this.box.current) return;
    const count = this.count();
    const page = Math.max(1, Math.floor(this.box.current.clientHeight / HEIGHT) - 2);
    const to = {
      ArrowDown: this.state.at + 1, ArrowUp: this.state.at - 1, PageDown: this.state.at + page, PageUp: this.state.at - page,
      Home: 0, End: count - 1,
    }[event.key];
    if (to !== undefined) {
      event.preventDefault();
      const at = Math.max(0, Math.min(to, count - 1));
      this.setState({ at });
      const box = this.box.current;
      const [top, bottom] = [at * HEIGHT, (at + 2) * HEIGHT]; // the header covers one row
      if (top < box.scrollTop) box.scrollTop = top;
      else if (bottom > box.scrollTop + box.clientHeight) box.scrollTop = bottom - box.clientHeight;
    } else if (event.key === "Enter" || event.key === " ") {
      event.preventDefault();
      const row = this.hold.drawn?.entries[this.state.at - this.hold.drawn.first];
      if (row) this.props.onChoose(row);
    }
  };

  // A click sorts by a column alone, or turns its order round; with Shift it is added to the others.
  sorted(name, kind, isAdded) {
    const { sort } = this.props;
    const old = sort.find((each) => each.replace("-", "") === name);
    const fresh = kind === "number" ? `-${name}` : name;
    const next = old === undefined ? fresh : old.startsWith("-") ? name : `-${name}`;
    if (!isAdded) return this.props.onSort([next]);
    this.props.onSort((old === undefined ? [...sort, next] : sort.map((each) => (each === old ? next : each))).slice(-4));
  }

  pick = (place, row) => {
    this.setState({ at: place });
    this.props.onChoose(row);
  };

  // How many rows there are; while the order is held, those that are gone are among them.
  count() {
    const { drawn } = this.hold;
    return Math.max(this.state.table.matching ?? 0, drawn?.entries.length ? drawn.first + drawn.entries.length : 0);
  }

  // Rows are told apart by their places: where the order changes, texts change and no element moves.
  drawn({ columns, chosen }, { table, at, from, until }, rows) {
    const { first = 0, keys } = table;
    const found = [];
    for (let place = Math.max(first, from); place < Math.min(first + rows.length, until); place += 1) {
      const row = rows[place - first];
      if (row) found.push(html`<${Row} key=${place} row=${row} place=${place} columns=${columns} names=${table.columns} isAt=${place === at}
        isChosen=${chosen !== null && JSON.stringify(row.slice(0, keys)) === chosen} onPick=${this.pick} />`);
    }
    return found;
  }

  render({ columns, sort, empty, label }, { table }) {
    const span = { first: table.first ?? 0, count: this.params().count };
    const rows = this.hold.order(table.rows ?? [], (row) => JSON.stringify(row.slice(0, table.keys)), span);
    const count = this.count();
    return html`<div class="rows" ref=${this.box} tabindex="0" role="table" aria-label=${label} aria-rowcount=${count + 1}
        onScroll=${this.look} onKeyDown=${this.key} ...${this.hold.listeners}>
      <div class="row head" role="row" aria-rowindex="1">
        ${columns.map((column) => html`<${Head} key=${column.name} column=${column} sort=${sort}
          onSort=${(isAdded) => this.sorted(column.name, column.kind, isAdded)} />`)}
      </div>
      ${count === 0 ? html`<div role="row"><div role="cell">${empty}</div></div>` : html`<div class="space" role="rowgroup" style=${{ height: `${count * HEIGHT}px` }}>
        ${this.drawn(this.props, this.state, rows)}
      </div>`}
    </div>`;
  }
}

// A row of the server stays the same object until it changes.
class Row extends Component {
  shouldComponentUpdate(props) {
    return ["row", "place", "columns", "names", "isAt", "isChosen"].some((name) => this.props[name] !== props[name]);
  }

  render({ row, place, columns, names, isAt, isChosen, onPick }) {
    const cell = (name) => row[names.indexOf(name)];
    return html`<div class=${`row${isChosen ? " chosen" : ""}${isAt ? " at" : ""}`} role="row" aria-rowindex=${place + 2}
        style=${{ transform: `translateY(${place * HEIGHT}px)` }} onClick=${() => onPick(place, row)}>
      ${columns.map(({ name, kind, draw, from = 0, isWide }) => {
        const value = cell(name);
        return html`<div role="cell" class=${`${kind ?? "text"} from-${from}${isWide ? " wide" : ""}`} title=${typeof value === "string" ? shown(value) : null}>
          ${draw ? draw(value, cell) : shown(String(value))}</div>`;
      })}
    </div>`;
  }
}

function Head({ column: { name, title, kind = "text", from = 0, about, isWide }, sort, onSort }) {
  const place = sort.findIndex((each) => each.replace("-", "") === name);
  const down = place >= 0 && sort[place].startsWith("-");
  const order = place < 0 ? "none" : down ? "descending" : "ascending";
  return html`<div role="columnheader" class=${`${kind} from-${from}${isWide ? " wide" : ""}`} aria-sort=${order}>
    <button type="button" title=${about ?? "Click sorts; Shift and click adds to the order"} onClick=${(event) => onSort(event.shiftKey)}>
      ${title}${place >= 0 && html`<span class="order" aria-hidden="true">${down ? "▼" : "▲"}${sort.length > 1 ? place + 1 : ""}</span>`}</button>
  </div>`;
}
