// A page with one of the broker's tables: its filter, its rows, and the details of a chosen one.
import { lacking } from "../access.js";
import { Component, createRef, html, render } from "../html.js";
import { duration } from "../format.js";
import { feed, watchSources } from "./live.js";
import { Rows } from "./rows.js";

const TYPING = 150; // milliseconds after the last key before a filter is asked for
const MOST_FILTER = 200; // characters that the feed takes
const MOST_SORTS = 4; // columns that it sorts by

// Whether a text of the address is the key of a row: a list of so many texts, as JSON.
function isKey(text, keys) {
  try {
    const key = JSON.parse(text);
    return Array.isArray(key) && key.length === keys && key.every((each) => typeof each === "string");
  } catch {
    return false;
  }
}

class Page extends Component {
  constructor(props) {
    super(props);
    const query = new URLSearchParams(location.search);
    const sort = query.get("sort")?.split(",").filter((each) => props.columns.some(({ name }) => name === each.replace(/^-/, ""))).slice(0, MOST_SORTS);
    this.state = {
      sort: sort?.length ? sort : props.sort,
      filter: (query.get("filter") ?? "").slice(0, MOST_FILTER),
      chosen: isKey(query.get("open"), props.keys) ? query.get("open") : null,
      isNew: false, // something is being declared
      isHeld: false, // the order of the rows
      table: {},
      sources: {},
    };
  }

  field = createRef();

  componentDidMount() {
    this.ended = watchSources((sources) => this.setState({ sources }));
    this.ticking = setInterval(() => this.setState({}), 1000); // the age grows
  }

  componentWillUnmount() {
    this.ended();
    clearInterval(this.ticking);
  }

  // What is shown is in the address, so that it can be kept and sent.
  keep(change) {
    this.setState(change, () => {
      const { sort, filter, chosen } = this.state;
      const query = new URLSearchParams();
      if (filter) query.set("filter", filter);
      if (sort !== this.props.sort) query.set("sort", sort.join(","));
      if (chosen) query.set("open", chosen);
      history.replaceState(null, "", `${location.pathname}${query.size ? `?${query}` : ""}`);
    });
  }

  type = (event) => {
    const filter = event.currentTarget.value;
    clearTimeout(this.typing);
    this.typing = setTimeout(() => this.keep({ filter }), TYPING);
  };

  clear = () => {
    this.field.current.value = "";
    this.keep({ filter: "" });
  };

  // Whoever closes the details by keyboard goes on in the rows, where they were opened.
  close = () => {
    this.keep({ chosen: null });
    document.querySelector(".rows").focus({ preventScroll: true });
  };

  // The virtual host in which something is declared: that of the first row.
  vhost() {
    const { columns = [], rows = [] } = this.state.table;
    return rows[0]?.[columns.indexOf("vhost")] || "/";
  }

  render({ topic, title, one, many, columns, hint, nothing, details, Declare }, { sort, filter, chosen, isNew, isHeld, table, sources }) {
    const count = (number) => `${number.toLocaleString("en")} ${number === 1 ? one : many}`;
    const told = table.error ? "" : table.total === undefined ? "loading" : filter ? `${table.matching.toLocaleString("en")} of ${count(table.total)}` : count(table.total);
    const trouble = sources.management?.reason ? sources.management : null;
    return html`<div class=${`broker${isNew || (chosen && details) ? " with-one" : ""}`}>
      ${trouble && html`<${Trouble} ...${trouble} />`}
      <div class="tools">
        <label class="filter"><span>Filter</span>
          <input type="search" ref=${this.field} defaultValue=${filter} maxlength=${MOST_FILTER} placeholder=${hint} spellcheck=${false} autocomplete="off" onInput=${this.type} /></label>
        <p class="told" role="status">${told}</p>
        ${Declare && html`<p><button type="button" aria-expanded=${isNew} disabled=${lacking("admin") !== null}
          onClick=${() => this.setState({ isNew: !isNew })}>Declare…</button> ${lacking("admin")}</p>`}
        <div class="age"><p class="held" data-held=${isHeld} title="While you point at the rows or go through them by keyboard, they stay where they are">order held</p>
          ${table.at && html`<p>${duration(feed.age(table.at))} old</p>`}</div>
      </div>
      <${Rows} topic=${topic} label=${title} columns=${columns} sort=${sort} filter=${filter} chosen=${chosen}
        onSort=${(next) => this.keep({ sort: next })} onHold=${(held) => this.setState({ isHeld: held })} onState=${(state) => this.setState({ table: { ...state } })}
        onChoose=${(row) => this.keep({ chosen: JSON.stringify(row.slice(0, table.keys)), isNew: false })}
        empty=${table.error ? html`<p class="nothing">${table.error}</p>` : !table.at ? html`<p class="nothing">Waiting for the broker.</p>`
          : filter ? html`<p class="nothing">No ${one} matches “${filter}”. <button type="button" onClick=${this.clear}>Show all ${many}</button></p>` : nothing} />
      ${isNew && html`<aside class="one" aria-label=${`A new ${one}`}>
        <button type="button" class="close" aria-label="Close the form" onClick=${() => this.setState({ isNew: false })}>×</button>
        <${Declare} vhost=${this.vhost()} onDone=${(key) => this.keep({ isNew: false, chosen: JSON.stringify(key) })} /></aside>`}
      ${chosen && details && !isNew && html`<aside class="one" aria-label=${`Details of the ${one}`}>
        <button type="button" class="close" aria-label="Close the details" onClick=${this.close}>×</button>
        <${Later} key=${chosen} load=${details} of=${JSON.parse(chosen)} /></aside>`}
    </div>`;
  }
}

// A part whose module is fetched when it is first shown. Props: load() (a promise of its class), and those of the part.
class Later extends Component {
  state = { Part: null, error: null };

  componentDidMount() {
    this.props.load().then((Part) => this.setState({ Part }), () => this.setState({ error: "This part of the page was not loaded: close it and open it again." }));
  }

  render({ load, ...props }, { Part, error }) {
    return Part ? html`<${Part} ...${props} />` : html`<p class="nothing" role=${error ? "alert" : null}>${error ?? "Loading."}</p>`;
  }
}

function Trouble({ title, state, reason, todo }) {
  return html`<div class="trouble" role="alert"><p><strong>${title[0].toUpperCase() + title.slice(1)} is ${state}.</strong> ${reason}</p>
    ${todo && html`<p>${todo}</p>`}</div>`;
}

export function show(props) {
  const page = document.getElementById("page");
  page.replaceChildren();
  render(html`<${Page} ...${props} />`, page);
}
