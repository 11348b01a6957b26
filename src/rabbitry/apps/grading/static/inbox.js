// A role's inbox: the list, page by page, and the opened item.
import { Held } from "../../static/held.js";
import { Component, html } from "../../static/html.js";
import { Pager } from "../../static/pager.js";
import { ask, mark, query, refused, time } from "./api.js";
import { Decide } from "./decide.js";
import { Filter } from "./lists.js";
import { visible } from "./text.js";
import { Unsent } from "./unsent.js";

const FRESH = { items: null, total: 0, each: 1, page: 0, find: "", module: "", open: null, error: null, said: null };

// Props: role, stamp (changes with the inbox or a decision), modules, who.
// Keys: j and k move the focus from entry to entry, Enter opens one as its button does, Escape closes it.
export class Inbox extends Component {
  state = FRESH;
  asked = 0; // number of the latest request: answers may overtake each other, and only the latest counts

  componentDidMount() {
    addEventListener("keydown", this.onKey);
    this.load();
  }

  componentWillUnmount() {
    removeEventListener("keydown", this.onKey);
  }

  onKey = (event) => {
    const isTyping = event.target.closest?.("input, textarea, select, dialog");
    if (isTyping || event.ctrlKey || event.metaKey || event.altKey) return;
    const step = { j: 1, k: -1 }[event.key];
    if (step) {
      const buttons = [...document.querySelectorAll(".inbox tbody button")];
      const next = buttons.indexOf(document.activeElement) + step;
      buttons[Math.min(Math.max(next, 0), buttons.length - 1)]?.focus();
    } else if (event.key === "Escape" && this.state.open) this.close();
  };

  componentDidUpdate(before) {
    if (before.role !== this.props.role) this.setState(FRESH, () => this.load());
    else if (before.stamp !== this.props.stamp) this.load();
  }

  async load() {
    const { role } = this.props;
    const { find, module, page } = this.state;
    const number = ++this.asked;
    const asked = query({ find, module, page });
    const isMeant = () => number === this.asked && role === this.props.role;
    try {
      const found = await ask(`inbox/${role}?${asked}`);
      if (!isMeant()) return;
      if (found.items.length === 0 && page > 0) this.show({ page: Math.max(0, Math.ceil(found.total / found.each) - 1) });
      else this.setState({ ...found, asked, error: null });
    } catch (error) {
      if (isMeant()) this.setState({ error: error.message });
    }
  }

  show = (change) => this.setState({ page: 0, ...change }, () => this.load());

  async open(id) {
    const { role } = this.props;
    try {
      const open = await ask(`inbox/${role}/${encodeURIComponent(id)}`);
      if (role === this.props.role) this.setState({ open, said: null, error: null });
    } catch (error) {
      if (role === this.props.role) this.setState({ error: error.message });
    }
  }

  // The answer to a decision may arrive when the person already looks at another assignment or inbox.
  done(item, said) {
    if (this.state.open === item) this.setState({ open: null, said });
    this.load();
  }

  takenBack = (said) => {
    this.setState({ said });
    this.load();
  };

  close = () => this.setState({ open: null });

  render({ role, stamp, modules, who }, { items, asked, total, each, page, find, module, open, error, said }) {
    const isFiltered = find !== "" || module !== "";
    return html`<section class="panel inbox" data-role=${role}>
      <div class="bar-top"><h2>Waiting for the ${role}</h2>
        <${Filter} find=${find} module=${module} modules=${modules} onChange=${this.show} /></div>
      ${error && html`<p class="notice bad" role="alert">${visible(error)}</p>`}
      ${said && html`<p class="notice good" role="status">${visible(said)}</p>`}
      <${Unsent} key=${`unsent ${role}`} role=${role} stamp=${`${stamp} ${said}`} done=${this.takenBack} />
      ${open && html`<${Decide} key=${`${role} ${open.item}`} item=${open} role=${role} stamp=${stamp} who=${who}
        done=${(said) => this.done(open, said)} close=${this.close} />`}
      ${items !== null && items.length === 0 && html`<p class="nothing">${isFiltered ? "No matches." : html`No submission waits here.
        They come from a role that runs with <code>--person</code>.`}</p>`}
      ${items !== null && items.length > 0 && html`<div class="scroll"><table class="rows">
        <thead><tr><th>Student</th><th>Module</th><th>File</th><th>Mark</th><th>Arrived</th><th></th></tr></thead>
        <${Held} as="tbody" asked=${`${role} ${asked}`} entries=${items} keyOf=${({ item }) => item} draw=${(item, isGone) => html`<tr key=${item.item} data-id=${item.id} class=${open?.item === item.item ? "open" : ""}>
          <td data-label="Student">${visible(item.student)}</td><td data-label="Module">${item.module ? visible(item.module) : "–"}</td>
          <td data-label="File" class="long">${item.name ? visible(item.name) : "–"}</td>
          <td data-label="Mark"><span>${mark(item.mark, item.out_of)}${item.is_marked && html` <span class="tag">marked by you</span>`}</span></td>
          <td data-label="Arrived"><span>${time(item.arrived_at)}${item.sent_back > 0 && html` <span class="tag">sent back ${item.sent_back}×</span>`}</span></td>
          <td>${isGone ? "no longer here" : html`<button type="button" disabled=${refused() !== null} title=${refused()}
            onClick=${() => this.open(item.id)}>Open</button>`}</td>
        </tr>`} />
      </table></div>`}
      ${items !== null && items.length > 0 && html`<p class="keys"><kbd>j</kbd> <kbd>k</kbd> choose, <kbd>Enter</kbd> opens, <kbd>Esc</kbd> closes.</p>`}
      <${Pager} page=${page} each=${each} total=${total} onPage=${(to) => this.show({ page: to })} />
    </section>`;
  }
}
