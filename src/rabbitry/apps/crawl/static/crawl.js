// The page of a crawl: the live picture, and the keeper's answers.
import { Connection } from "../../static/connection.js";
import { bytes, count, rate, shown } from "../../static/format.js";
import { Component, html, render } from "../../static/html.js";
import { reportBroker, reportLink } from "../../static/status.js";
import { Add } from "./add.js";
import { meanings } from "./asked.js";
import { Hosts } from "./hosts.js";
import { Live, perSecond } from "./live.js";
import { Chosen, Table } from "./nodes.js";
import { Picture } from "./picture.js";
import { Search } from "./search.js";
import { Status } from "./status.js";
import { Why } from "./why.js";

const PLACES = [["", "Live"], ["hosts", "Hosts"], ["search", "Search"], ["why", "Why?"], ["add", "Add"]];

// The parts of the address; a part that is not UTF-8 stays as it is.
const part = (text) => {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
};
const route = () => location.hash.replace(/^#\/?/, "").split("/").map(part);

class Crawl extends Component {
  state = { chosen: null, route: route(), words: {} };

  componentDidMount() {
    this.props.live.listen(() => this.setState({}));
    addEventListener("hashchange", () => this.setState({ route: route() }));
    meanings().then((words) => this.setState({ words }));
  }

  choose = (entry) => this.setState({ chosen: this.state.chosen?.key === entry.key ? null : entry });

  view([place, given = ""]) {
    const { words } = this.state;
    if (place === "hosts") return html`<${Hosts} words=${words} />`;
    if (place === "search") return html`<${Search} words=${given} />`;
    if (place === "why") return html`<${Why} url=${given} words=${words} />`;
    if (place === "add") return html`<${Add} words=${words} />`;
    return this.picture();
  }

  picture() {
    const { live } = this.props;
    const { chosen, words } = this.state;
    return html`
      <section class="panel" aria-label="Live picture">
        <${Totals} totals=${live.totals} live=${live} />
        <${Picture} live=${live} selected=${chosen?.key} onSelect=${this.choose} />
      </section>
      ${chosen && html`<${Chosen} entry=${chosen} live=${live} onClose=${() => this.setState({ chosen: null })} />`}
      <details class="panel"><summary>All ${count(live.nodes.size, "node", "nodes")} as a table</summary>
        <${Table} nodes=${live.nodes.values()} caption="All nodes" /></details>
      <${Status} words=${words} />`;
  }

  render({ live }, { route }) {
    const [place] = route;
    return html`
      <nav class="places tabs" aria-label="Crawl">
        ${PLACES.map(([to, title]) => html`<a href=${`#/${to}`} aria-current=${place === to ? "page" : null}>${title}</a>`)}
      </nav>
      <${Notices} live=${live} />${this.view(route)}`;
  }
}

function Totals({ totals, live }) {
  if (!totals) return null;
  const number = (kind) => [...live.nodes.values()].filter((node) => node.kind === kind).length;
  const figures = [
    ["crawled", totals.crawled.toLocaleString("en"), `${perSecond(totals.crawling)} a second, ${count(number("crawler"), "crawler", "crawlers")}`],
    ["processed", totals.processed.toLocaleString("en"), `${perSecond(totals.processing)} a second, ${count(number("processor"), "processor", "processors")}`],
    ["over the network", totals.wire ? bytes(totals.wire) : "–", totals.wire ? rate(totals.receiving) : "not reported"],
    ["log lines", totals.lines.toLocaleString("en"), totals.unread ? `${totals.unread.toLocaleString("en")} unreadable` : "all readable"],
  ];
  return html`<dl class="sums">${figures.map(([name, value, note]) =>
    html`<div data-sum=${name}><dt>${name}</dt><dd><b>${value}</b><span class="note">${note}</span></dd></div>`)}</dl>`;
}

// Problems and their remedies.
function Notices({ live }) {
  const { queues, totals, link, broker, trouble } = live;
  const found = [];
  const waits = (name) => (queues[name]?.messages > 0 && queues[name].consumers === 0 ? queues[name].messages : 0);
  if (trouble) found.push(["bad", html`<b>No live connection:</b> ${trouble}.`]);
  if (link.state === "live" && broker?.state === "away") found.push(["bad", html`<b>The broker is away:</b> ${shown(broker.reason)}. The page reconnects by itself.`]);
  if (link.state === "live" && broker?.state === "refused") found.push(["bad", html`<b>No picture can be shown:</b> ${shown(broker.reason)}. <code>rabbitry doctor</code> shows what to do.`]);
  if (waits("crawl.batches")) found.push(["warn", html`<b>${count(waits("crawl.batches"), "batch waits", "batches wait")}</b>, and no crawler runs. Start one, on any machine: <code>rabbitry crawl crawler</code>`]);
  if (waits("proc")) found.push(["warn", html`<b>${count(waits("proc"), "page waits", "pages wait")}</b>, and no processor runs. Start one, on any machine: <code>rabbitry crawl processor</code>`]);
  if (totals?.overrun) found.push(["warn", html`Log lines arrive faster than this page reads them: some are missing in the figures.`]);
  if (totals?.forgotten) found.push(["warn", html`Not all nodes are shown: ${count(totals.forgotten, "was", "were")} left out.`]);
  return found.map(([kind, children]) => html`<div class=${`notice ${kind}`} role="status"><p>${children}</p></div>`);
}

const live = new Live();
const url = new URL("ws", document.baseURI);
url.protocol = url.protocol.replace("http", "ws");
const connection = new Connection(url, (update) => live.receive(update), (link) => live.setLink(link));
live.listen(() => {
  reportLink(live.link, connection);
  reportBroker(live.broker, live.link);
});
const root = document.getElementById("page");
root.replaceChildren();
render(html`<${Crawl} live=${live} />`, root);
