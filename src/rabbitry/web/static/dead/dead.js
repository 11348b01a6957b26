// The dead letters of the apps: grouped, looked at, replayed, edited and dropped.
import { count, shown } from "../format.js";
import { Component, html, render } from "../html.js";
import { Held } from "../held.js";
import { feed, watchSources } from "../broker/live.js";
import { Act } from "./act.js";
import { Group } from "./group.js";
import { Job } from "./job.js";
import { lookers } from "./looking.js";

const END = ".dead";
const MOST_APPS = 500;

function wanted() {
  const query = new URLSearchParams(location.search);
  return query.has("app") ? JSON.stringify([query.get("vhost") ?? "/", query.get("app")]) : null;
}

class DeadLetters extends Component {
  state = { apps: null, chosen: wanted(), jobs: {}, sources: {} };
  first = null; // the app that is open before one is chosen

  componentDidMount() {
    watchSources((sources) => this.setState({ sources }));
    feed.open("queues", { filter: `name=${END}`, sort: ["-messages", "name"], first: 0, count: MOST_APPS }, ({ rows, columns, at }) => {
      if (!rows || at === undefined) return;
      const place = (name) => columns.indexOf(name);
      const apps = rows.map((row) => ({ vhost: row[place("vhost")], queue: row[place("name")], type: row[place("type")], ready: row[place("ready")], held: row[place("unacked")] }))
        .filter(({ queue }) => queue.endsWith(END) && queue.length > END.length);
      this.setState({ apps: new Map(apps.map((each) => [JSON.stringify([each.vhost, each.queue.slice(0, -END.length)]), each])) });
    });
    feed.open("replays", {}, ({ value }) => this.setState({ jobs: value ?? {} }));
  }

  choose = (key) => {
    const [vhost, app] = JSON.parse(key);
    history.replaceState(null, "", `${location.pathname}?${new URLSearchParams({ vhost, app })}`);
    this.setState({ chosen: key });
  };

  render(_, { apps, chosen, jobs, sources }) {
    const trouble = Object.values(sources).find(({ reason }) => reason);
    const full = [...(apps ?? [])].filter(([, { ready, held }]) => ready + held > 0).map(([key]) => key);
    // It stays open when it has no dead letters left: the result of the last replay or drop is there, and no other app
    // comes under the pointer.
    this.first ??= full[0] ?? null;
    const open = chosen ?? this.first;
    const listed = [...new Set([...full, ...(open === null ? [] : [open])])];
    return html`<div class="dead">
      ${trouble && html`<div class="notice bad" role="alert"><div><p><b>${trouble.title} is ${trouble.state}:</b> ${shown(trouble.reason)}.</p>${trouble.todo && html`<p>${trouble.todo}.</p>`}</div></div>`}
      ${apps === null && chosen === null && html`<p class="nothing">Waiting for the broker’s queues.</p>`}
      ${apps !== null && open === null && html`<${Empty} />`}
      ${listed.length > 1 && html`<${Held} as="ul" class="apps" aria-label="Apps with dead letters" entries=${listed} keyOf=${(key) => key} draw=${(key) => {
        const [vhost, app] = JSON.parse(key);
        return html`<li key=${key}><button type="button" aria-pressed=${key === open ? "true" : "false"} onClick=${() => this.choose(key)}>
          <bdi>${shown(app)}</bdi>${vhost !== "/" && html` <span class="note">in <bdi>${shown(vhost)}</bdi></span>`} <b>${(apps?.get(key)?.ready ?? 0).toLocaleString("en")}</b></button></li>`;
      }} />`}
      ${open !== null && html`<${App} key=${open} name=${JSON.parse(open)} queue=${apps?.get(open)} isKnown=${apps !== null}
        job=${jobs[JSON.parse(open).join("/")]} />`}
    </div>`;
  }
}

function Empty() {
  return html`<div class="nothing"><p><b>There are no dead letters.</b></p>
    <p>A message that fails for good comes here, with its error and its traceback. Workers put it into the queue <code>APP.dead</code>;
      start one with <code>rabbitry worker MODULE:APP</code>, and watch <a href="../">what flows</a>.</p></div>`;
}

// One app. Props: name [vhost, app], queue (its row in the feed), job (its replay or drop).
class App extends Component {
  state = { found: null, isAsked: false, warns: false, agreed: false, error: null, action: null };

  componentDidMount() {
    this.look();
  }

  componentDidUpdate(before) {
    // Replayed and dropped messages are gone: look again. A broker that marks messages on a look is asked only by the button.
    // The page may first see a fast job when it is over.
    const end = ({ job }) => (job && !["running", "paused"].includes(job.state) ? job.since : null);
    if (end(this.props) !== null && end(this.props) !== end(before) && !this.state.agreed) this.look();
  }

  look = async (agreed = this.state.agreed) => {
    const [vhost, app] = this.props.name;
    this.setState({ isAsked: true, error: null });
    try {
      const found = await lookers(agreed)("groups", { vhost, app });
      // A form that was opened before the first answer stays; one about what was there at an earlier look does not.
      const action = this.state.found ? null : this.state.action;
      this.setState(found.fetches ? { warns: true } : { found, warns: false, agreed, action });
    } catch (error) {
      this.setState({ error: error.message });
    }
    this.setState({ isAsked: false });
  };

  render({ name: [vhost, app], queue, isKnown, job }, { found, isAsked, warns, agreed, error, action }) {
    const given = { vhost, app };
    const isBusy = job && ["running", "paused"].includes(job.state);
    const all = { ...given, everything: true };
    const total = found?.total ?? queue?.ready ?? 0;
    return html`<section class="panel" aria-labelledby="app">
      <div class="bar-top"><h2 id="app">Dead letters of <bdi>${shown(app)}</bdi></h2>
        <p class="note" role="status">${queue ? `${count(queue.ready, "message", "messages")} in the queue${queue.held ? `, and ${queue.held.toLocaleString("en")} in use` : ""}`
          : isKnown ? "The queue is not there." : ""}</p>
        <div class="tools"><button type="button" disabled=${isAsked} onClick=${() => this.look()}>${found || error ? "Look again" : "Look"}</button>
          <button type="button" disabled=${!total || isBusy} aria-expanded=${action === "replay" ? "true" : "false"} onClick=${() => this.setState({ action: "replay" })}>Replay all…</button>
          <button type="button" disabled=${!total || isBusy} aria-expanded=${action === "drop" ? "true" : "false"} onClick=${() => this.setState({ action: "drop" })}>Drop all…</button>
          <a href="../audit/">Audit log</a></div></div>
      ${job && html`<${Job} job=${job} />`}
      ${action && !isBusy && html`<${Act} key=${action} action=${action} selection=${all} number=${total} agreed=${agreed} onEnd=${() => this.setState({ action: null })} />`}
      ${error && html`<p class="failed" role="alert">${error}</p>`}
      ${warns && html`<div class="warning" role="group" aria-label="Before you look">
        <p>This broker can’t show messages without a delivery. All that are read are delivered and put back: they are marked as redelivered, and while
          they are read nobody else gets them.${queue?.type === "quorum" ? " In a quorum queue each look counts as a delivery; Rabbitry declares this queue without a limit of deliveries." : ""}</p>
        <p><button type="button" disabled=${isAsked} onClick=${() => this.look(true)}>Deliver and put back</button></p></div>`}
      ${isAsked && !found && html`<p class="nothing">Looking.</p>`}
      ${found && html`<${Found} ...${found} given=${given} agreed=${agreed} isBusy=${isBusy} />`}
    </section>`;
  }
}

function Found({ total, seen, groups, others, given, agreed, isBusy }) {
  if (groups.length === 0) return html`<p class="nothing">No dead letter is ready in this queue.${total === 0 ? " What fails for good comes here." : ""}</p>`;
  return html`${seen < total && html`<p class="note">Grouped are the oldest ${seen.toLocaleString("en")} of ${total.toLocaleString("en")}. Replaying or dropping a group takes all of it.</p>`}
    <ol class="groups">${groups.map((group) => html`<${Group} key=${JSON.stringify([group.stage, group.reason, group.kind])} group=${group} given=${given} agreed=${agreed} isBusy=${isBusy} />`)}</ol>
    ${others > 0 && html`<p class="note">and ${count(others, "message", "messages")} of further groups: set these right first.</p>`}`;
}

const page = document.getElementById("page");
page.replaceChildren();
render(html`<${DeadLetters} />`, page);
