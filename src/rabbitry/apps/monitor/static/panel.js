// The machines on the dashboard's first page: the busiest few, as cards.
import { attend } from "../../static/attention.js";
import { clock } from "../../static/format.js";
import { Held } from "../../static/held.js";
import { Component, html } from "../../static/html.js";
import { Card } from "./card.js";
import { live } from "./live.js";
import { labels } from "./twins.js";

const MOST = 6;
const MOST_SILENT = 100;
const place = new URL("../", import.meta.url).pathname;
const byName = new Intl.Collator("en", { numeric: true });

// The machines that fell silent, while the page would hear them.
function silent({ hosts, link, broker }) {
  if (link.state !== "live" || ["away", "refused"].includes(broker?.state)) return {};
  const all = [...hosts.values()];
  const told = labels(all);
  return Object.fromEntries(all.filter(({ stale }) => stale).slice(0, MOST_SILENT).map(({ id, name, at }) => [
    `machine ${[name, told.get(id)].filter(Boolean).join(", ")}`,
    { bad: true, what: `no sample since ${clock(at)}`, todo: "see whether it runs, and its agent: rabbitry monitor publish", link: place },
  ]));
}

export default class Machines extends Component {
  componentDidMount() {
    live().listen(() => {
      attend("monitor", silent(live()));
      this.setState({});
    });
  }

  render() {
    const store = live();
    const all = [...store.hosts.values()];
    const told = labels(all);
    // Silent machines first. By name and not by load: cards that change places can't be read.
    const sorted = all.toSorted((a, b) => b.stale - a.stale || byName.compare(a.name, b.name) || byName.compare(a.id, b.id));
    return html`<section aria-labelledby="machines">
      <div class="bar-top"><h2 id="machines">Machines</h2>
        <a href=${place}>${all.length > MOST ? `All ${all.length.toLocaleString("en")} machines` : "All about machines"}</a></div>
      ${all.length === 0 && html`<p class="nothing">No samples have come yet. On each machine that you want to see here, run${" "}
        <code>rabbitry monitor publish</code>.</p>`}
      <${Held} as="div" class="grid" data-density=${all.length === 1 ? "few" : "many"} entries=${sorted.slice(0, MOST)} keyOf=${({ id }) => id}
        draw=${(host) => html`<${Card} key=${host.id} host=${host} label=${told.get(host.id)} version=${host.version} alone=${false} height=${64} />`} />
    </section>`;
  }
}
