// The hosts: queued addresses, due time and last outcomes of each.
import { duration, shown } from "../../static/format.js";
import { Component, html } from "../../static/html.js";
import { Pager } from "../../static/pager.js";
import { Asked } from "./asked.js";
import { Outcome } from "./text.js";

const MOST_LAST = 6;

// Props: words.
export class Hosts extends Component {
  state = { page: 0 };

  draw = ({ hosts = [], total = 0 }, { each }) => html`
    ${hosts.length === 0 && html`<p class="nothing">No hosts yet. <a href="#/add">Add an address</a></p>`}
    ${hosts.length > 0 && html`<div class="scroll" tabindex="0" role="region" aria-label="Hosts"><table class="rows">
      <thead><tr>${["Host", "Queued", "Out", "Done", "Delay", "Next", "robots.txt", "Last outcomes"].map((title) => html`<th scope="col">${title}</th>`)}</tr></thead>
      <tbody>${hosts.map((host) => this.row(host))}</tbody>
    </table></div>`}
    <${Pager} page=${this.state.page} each=${each} total=${total} onPage=${(page) => this.setState({ page })} />`;

  row({ origin, queued = 0, sent = 0, done = 0, delay = 0, next_at: nextAt, is_out: isOut, robots, last = [] }) {
    const wait = nextAt ? nextAt - Date.now() / 1000 : 0;
    return html`<tr key=${origin}>
      <td data-label="Host" class="long"><bdi>${shown(origin)}</bdi></td><td data-label="Queued">${queued.toLocaleString("en")}</td>
      <td data-label="Out">${sent.toLocaleString("en")}</td><td data-label="Done">${done.toLocaleString("en")}</td>
      <td data-label="Delay">${delay} s</td>
      <td data-label="Next">${isOut ? "being fetched" : queued === 0 ? "–" : wait > 0 ? `in ${duration(Math.ceil(wait))}` : "due"}</td>
      <td data-label="robots.txt">${robots ? html`<${Outcome} name=${robots} words=${this.props.words} />` : "–"}</td>
      <td data-label="Last outcomes"><span class="last">${last.slice(0, MOST_LAST).map(({ outcome, detail }) =>
        html`<${Outcome} name=${outcome} detail=${detail} words=${this.props.words} />`)}</span></td>
    </tr>`;
  }

  render(_, { page }) {
    return html`<section class="panel" id="hosts"><h2>Hosts</h2>
      <${Asked} path=${`hosts?page=${page}`} every=${3} draw=${this.draw} /></section>`;
  }
}
