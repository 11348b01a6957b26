// The details of one thing, live: what all kinds of them have in common.
import { shown } from "../format.js";
import { Component, html } from "../html.js";
import { feed } from "./live.js";

// Props: topic, params, title, where, gone (what is said of a thing that is no more), draw(value).
export class Details extends Component {
  state = { value: null };

  componentDidMount() {
    const { topic, params } = this.props;
    this.subscription = feed.open(topic, params, ({ value, error }) => this.setState({ value: value ?? null, error }));
  }

  componentWillUnmount() {
    this.subscription.close();
  }

  render({ title, where, gone, draw }, { value, error }) {
    return html`<h2><bdi>${shown(title)}</bdi></h2>${where && html`<p class="where">${where}</p>`}
      ${error ? html`<p class="nothing">${error}</p>` : !value?.state ? html`<p class="nothing">Loading.</p>`
        : value.state === "missing" ? html`<p class="nothing">${value.reason ? shown(value.reason) : gone}</p>` : draw(value)}`;
  }
}

export const inVhost = (vhost) => html`Virtual host <bdi>${shown(vhost)}</bdi>`;

export function Figure({ term, value }) {
  return html`<div><dt>${term}</dt><dd>${value}</dd></div>`;
}

export function Members({ of }) {
  const members = Object.entries(of);
  if (members.length === 0) return null;
  return html`<dl class="arguments">${members.map(([key, value]) => html`<div><dt><bdi>${shown(key)}</bdi></dt>
    <dd><bdi>${shown(typeof value === "string" ? value : JSON.stringify(value))}</bdi></dd></div>`)}</dl>`;
}

export function Policy({ name, definition }) {
  return html`<h3>Policy</h3>
    ${name ? html`<p><bdi>${shown(name)}</bdi></p><${Members} of=${definition} />` : html`<p class="zero">None applies.</p>`}`;
}

// A link to the details of something else. key: as the table of `page` has it.
export function Link({ page, of }) {
  const [name] = of.slice(-1);
  return html`<a href=${`../${page}/?${new URLSearchParams({ open: JSON.stringify(of) })}`}><bdi>${shown(name) || "(no name)"}</bdi></a>`;
}

// Props: of, rows of the topic `consumers` as objects; nobody, what is said where there are none.
export function Consumers({ of, nobody, isOfChannel }) {
  return html`<h3>Consumers</h3>
    ${of.length ? html`<ul class="list">${of.map((each) => html`<li>${isOfChannel ? html`<${Link} page="queues" of=${[each.vhost, each.queue]} />`
        : html`<${Link} page="channels" of=${[each.channel]} />`}
      <span class="zero"> tag <bdi>${shown(each.tag)}</bdi>, prefetch ${each.prefetch || "unlimited"}, ${each.ack}</span></li>`)}</ul>` : html`<p class="zero">${nobody}</p>`}`;
}

export const leftOut = (number, what) => number > 0 && html`<p class="zero">${number.toLocaleString("en")} more ${what} are not shown.</p>`;
