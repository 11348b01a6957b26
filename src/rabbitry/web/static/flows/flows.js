// The stages of all apps, in the order in which messages pass them.
import { feed, watchSources } from "../broker/live.js";
import { count, shown } from "../format.js";
import { Held } from "../held.js";
import { Component, html, render } from "../html.js";
import { Document } from "./message.js";
import { Stage } from "./stage.js";

const byName = new Intl.Collator("en", { numeric: true });

class Flows extends Component {
  state = { stages: null, drift: {}, sources: {} };

  componentDidMount() {
    feed.open("flows", {}, ({ value }) => this.setState({ stages: value ?? null }));
    feed.open("drift", {}, ({ value }) => this.setState({ drift: value ?? {} }));
    watchSources((sources) => this.setState({ sources }));
    setInterval(() => this.setState({}), 1000); // updates the time since each pause
  }

  render(_, { stages, drift, sources }) {
    const { telemetry } = sources;
    const away = telemetry && telemetry.state !== "live" && telemetry.state !== "connecting";
    const apps = new Map();
    for (const stage of Object.values(stages ?? {})) apps.set(stage.app, [...(apps.get(stage.app) ?? []), stage]);
    const paused = Object.values(stages ?? {}).filter(({ state }) => state === "paused").length;
    return html`<div class="flows">
      ${away && html`<p class="notice warn" role="alert"><span><b>${telemetry.title} is ${telemetry.state}:</b> ${shown(telemetry.reason ?? "")}.${telemetry.todo && ` ${telemetry.todo}.`}</span></p>`}
      <p class="unseen" role="status">${stages && paused > 0 ? `${count(paused, "stage is", "stages are")} paused` : ""}</p>
      ${!stages && html`<p class="nothing">Waiting for the first reports of workers.</p>`}
      ${stages && apps.size === 0 && html`<div class="nothing"><p>No worker of an app reports itself.</p><p>Start one; it appears here within 3 s:</p>
        <pre><code>rabbitry worker MODULE:APP</code></pre></div>`}
      ${apps.size > 0 && drift.reason && html`<p class="way">What the apps declare is not compared with the broker: ${drift.reason}</p>`}
      <${Held} as="div" entries=${[...apps].sort(([a], [b]) => byName.compare(a, b))} keyOf=${([app]) => app} draw=${([app, members]) => html`<section key=${app} aria-label=${shown(app)}>
        <h2><bdi>${shown(app)}</bdi></h2>
        ${members.some(({ described }) => described) && html`<${Document} app=${app} />`}
        <${Drift} found=${differences(drift, app)} />
        <${Held} as="ol" class="stages" entries=${members.sort((a, b) => a.place - b.place)} keyOf=${({ stage }) => stage}
          draw=${(stage) => html`<${Stage} key=${stage.stage} stage=${stage} />`} />
      </section>`} />
    </div>`;
  }
}

// Those of an app; an object has members by itself, such as "constructor", which may be an app's name.
const differences = ({ apps }, app) => (apps && Object.hasOwn(apps, app) ? apps[app] : null);

// The differences between what the app declares and what the broker has. Props: found, null before they are compared.
function Drift({ found }) {
  if (!found?.length) return null;
  return html`<details class="drift" open><summary>${count(found.length, "difference", "differences")} between what the app declares and what the broker has</summary>
    <ul>${found.map(({ what, text, todo }) => html`<li key=${what}><bdi>${shown(what)}</bdi>: <bdi>${shown(text)}</bdi>. <span class="todo">${todo}.</span></li>`)}</ul></details>`;
}

const page = document.getElementById("page");
page.replaceChildren();
render(html`<${Flows} />`, page);
