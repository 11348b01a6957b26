// One message's way: every passage of its chain through a stage, as a tree.
import { ask } from "../ask.js";
import "../broker/live.js"; // the header's states
import { shown, shownJson } from "../format.js";
import { Held } from "../held.js";
import { Component, html, render } from "../html.js";
import { tree } from "./tree.js";

const EVERY = 2000; // reports come each 2 s
const DEEPEST = 30; // levels that are indented one by one

// A report may hold any text, also one that objects have by themselves, such as "constructor".
const WORDS = new Map(Object.entries({
  done: "done", failed: "failed", rejected: "rejected", retry: "asked to come again", suspect: "put aside, to be handled alone",
  "given-back": "given back, not begun", abandoned: "interrupted",
  cancelled: "dropped, since its job was cancelled", skipped: "skipped, since it was handled before",
}));

const whole = (number) => number.toLocaleString("en");

function span(seconds) {
  if (seconds < 0.001) return `${Math.round(seconds * 1e6)} µs`;
  if (seconds < 1) return `${(seconds * 1000).toPrecision(3)} ms`;
  return seconds < 120 ? `${seconds.toPrecision(3)} s` : `${(seconds / 60).toFixed(1)} min`;
}

const time = (unix) => new Date(unix * 1000).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", second: "2-digit", fractionalSecondDigits: 3 });

const state = ({ outcome, end }) => (end === "dead" ? "dead" : outcome === "done" || outcome === "skipped" ? "done" : end === "again" || outcome === "cancelled" ? "again" : "bad");

// Returns the seconds between the end of the passage before, or the publish, and the delivery.
function gap(passage, before) {
  const delivered = passage.began - passage.waited;
  if (before) return delivered - before.began - before.seconds;
  return passage.published ? delivered - passage.published : NaN;
}

function Passage({ passage, before }) {
  const { app, stage, queue, host, node, began, seconds, waited, attempt, outcome, end, error, trace, keys, led } = passage;
  const queued = gap(passage, before);
  return html`<div class="passage" data-state=${state(passage)}>
    <p><b><bdi>${shown(`${app} ${stage}`)}</bdi></b> <span class="outcome">${shown(WORDS.get(outcome) ?? outcome)}${
      end === "dead" ? ", became a dead letter" : end === "again" ? ", comes again" : ""}</span>
      ${attempt > 1 && html` <span class="tag">attempt ${whole(attempt)}</span>`}</p>
    <p class="note"><time datetime=${new Date(began * 1000).toISOString()} title=${new Date(began * 1000).toLocaleString()}>${time(began)}</time>${" on "}<bdi>${shown(host)}</bdi>, worker <bdi>${shown(node)}</bdi>${queue && html`, queue <bdi>${shown(queue)}</bdi>`}:
      ${Number.isFinite(queued) && queued >= 0 && ` ${before ? "" : "about "}${span(queued)} before its delivery,`}
      ${` ${span(waited)} waiting in the worker, ${span(seconds)} in the handler`}${led > 0 && end === "" && `, led to ${whole(led)} (${
      [...new Set(keys)].slice(0, 5).map((key) => shown(key)).join(", ")})`}</p>
    ${error && html`<p class="error"><bdi>${shown(error)}</bdi></p>`}
    ${trace && html`<details><summary>Traceback</summary><pre tabindex="0" role="region" aria-label="Traceback">${shownJson(trace)}</pre></details>`}
  </div>`;
}

function Message({ of, cause, level }) {
  const isDead = of.passages.some(({ end }) => end === "dead");
  const title = of.id.startsWith("\0") ? "a message without an id" : shown(of.id);
  return html`<li><article class="message" aria-label=${`Message ${title}`} data-dead=${isDead ? "true" : null}>
      <h3><code>${title}</code></h3>
      ${of.passages.map((passage, place) => html`<${Passage} passage=${passage} before=${of.passages[place - 1] ?? cause} />`)}
      ${isDead && html`<p class="note">Its dead letter is in the queue <bdi>${shown(`${of.passages.at(-1).app}.dead`)}</bdi> until somebody replays or drops it.</p>`}
      ${of.led.length > 0 && html`<details class="led"><summary>${of.led.length === 1 ? "One message" : `${whole(of.led.length)} messages`} that no stage reported yet</summary>
        <ul>${of.led.map(({ id, key }) => html`<li>key <bdi>${shown(key)}</bdi> ${id && html`<code>${shown(id)}</code>`}</li>`)}</ul></details>`}
    </article>
    ${of.children.length > 0 && html`<ul class=${level < DEEPEST ? "" : "flat"}>${of.children.map((child) => html`<${Message} key=${child.id} of=${child}
      cause=${of.passages.findLast(({ ids }) => ids.includes(child.id))} level=${level + 1} />`)}</ul>`}</li>`;
}

function Recent({ title, passages, empty }) {
  return html`<section class="panel" aria-label=${title}><h2>${title}</h2>
    ${passages.length === 0 ? html`<p class="nothing">${empty}</p>` : html`<${Held} as="ul" class="recent" isStill entries=${passages} draw=${(passage) => html`<li data-state=${state(passage)}>
      <a href=${`?id=${encodeURIComponent(passage.chain)}`}><code>${shown(passage.chain)}</code></a>
      <span><bdi>${shown(`${passage.app} ${passage.stage}`)}</bdi> ${shown(WORDS.get(passage.outcome) ?? passage.outcome)}
        ${passage.error && html`: <bdi>${shown(passage.error)}</bdi>`}</span>
      <time datetime=${new Date(passage.began * 1000).toISOString()}>${time(passage.began)}</time></li>`} />`}</section>`;
}

function Sampled({ share, missed }) {
  if (share >= 1 && missed === 0) return null;
  return html`<p class="notice" role="note">${share < 1 && `So many messages pass that workers report 1 in ${whole(Math.round(1 / share))} chains, chosen by
    their correlation id, and those that failed. `}${missed > 0 && "Long chains are reported in part. "}A chain that is not here may have been left out.</p>`;
}

class Way extends Component {
  state = { id: new URLSearchParams(location.search).get("id")?.trim() ?? "", found: null, recent: null, error: null };

  componentDidMount() {
    this.load();
    setInterval(() => document.hidden || this.load(), EVERY);
    document.addEventListener("visibilitychange", () => document.hidden || this.load());
  }

  load = async () => {
    const { id } = this.state;
    if (this.loading) return;
    this.loading = true;
    try {
      if (id) this.setState({ found: await ask(`chain?id=${encodeURIComponent(id.slice(0, 255))}`), error: null });
      else this.setState({ recent: await ask("recent"), error: null });
    } catch (error) {
      this.setState({ error: error.message });
    } finally {
      this.loading = false;
    }
  };

  // The page's policy lets no form be sent.
  go = (event) => {
    event.preventDefault();
    location.href = `?id=${encodeURIComponent(event.currentTarget.elements.id.value.trim())}`;
  };

  render(_, { id, found, recent, error }) {
    const about = found ?? recent;
    return html`<div class="way">
      <form class="tools" role="search" aria-label="A message by its id" onSubmit=${this.go}><label><span>Message id or correlation id</span>
        <input type="search" name="id" defaultValue=${id} maxlength="255" spellcheck=${false} autocomplete="off" required /></label>
        <button>Show its way</button>${id && html` <a href="./">Newest messages</a>`}</form>
      ${error && html`<p class="failed" role="alert">${error}</p>`}
      ${about && html`<${Sampled} ...${about} />`}
      ${found && (found.passages.length === 0 ? html`<${Nothing} of=${found} id=${id} />` : html`<${Chain} of=${found} />`)}
      ${recent && html`<${Recent} title="Newest that failed" passages=${recent.failed} empty="No message failed in the last hour." />
        <${Recent} title="Newest of the others" passages=${recent.others}
          empty="No worker reported a message in the last hour. Start one: rabbitry worker MODULE:APP" />`}
    </div>`;
  }
}

function Chain({ of: { chain, passages, most } }) {
  const apps = new Set(passages.map(({ app }) => app));
  const failed = passages.filter((passage) => state(passage) !== "done").length;
  const first = Math.min(...passages.map(({ began }) => began));
  const last = Math.max(...passages.map(({ began, seconds }) => began + seconds));
  return html`<section class="panel" aria-labelledby="chain"><h2 id="chain">Chain <code>${shown(chain)}</code></h2>
    <p role="status">${passages.length === 1 ? "One passage" : `${whole(passages.length)} passages`} through stages of ${[...apps].map((app) => shown(app)).join(", ")} in ${span(last - first)}${
      failed ? `, ${whole(failed)} of them not done` : ""}.${passages.length >= most ? ` The first ${whole(most)} are shown.` : ""}</p>
    <ul class="tree">${tree(passages).map((message) => html`<${Message} key=${message.id} of=${message} level=${0} />`)}</ul></section>`;
}

function Nothing({ of: { kept, nodes }, id }) {
  return html`<div class="nothing"><p>No worker reported a message with the id <code>${shown(id)}</code> in the last ${Math.round(kept / 60)} min since this dashboard runs.</p>
    <p>${nodes === 0 ? "No worker reports itself now." : "It may still wait in a queue, be older, or come from a program that is no worker of Rabbitry."}</p></div>`;
}

const page = document.getElementById("page");
page.replaceChildren();
render(html`<${Way} />`, page);
