// One stage: its state in words, its figures, its workers, and the button that pauses or resumes it.
import { lacking } from "../access.js";
import { post } from "../ask.js";
import { DASH, count, duration, shown } from "../format.js";
import { Component, html } from "../html.js";
import { Message } from "./message.js";

const STATES = { running: "Running", paused: "Paused", silent: "No worker reports" };
const FASTEST = 100; // a second; above it a decimal says nothing

const number = (value) => (Number.isFinite(value) ? value.toLocaleString("en") : DASH);
const perSecond = (value) => (Number.isFinite(value) ? `${value.toLocaleString("en", { maximumFractionDigits: value < FASTEST ? 1 : 0 })}/s` : DASH);

function seconds(value) {
  if (!Number.isFinite(value)) return DASH;
  if (value < 0.001) return `${Math.round(value * 1e6)} µs`;
  return value < 1 ? `${Number((value * 1000).toPrecision(3))} ms` : `${Number(value.toPrecision(3))} s`;
}

const since = (unix) => duration(Date.now() / 1000 - unix);

// Props: stage, as the topic has it.
export class Stage extends Component {
  state = { isAsked: false, error: null };

  change = async () => {
    const { app, stage, state } = this.props.stage;
    this.setState({ isAsked: true, error: null });
    try {
      await post(state === "paused" ? "resume" : "pause", { app, stage });
    } catch (error) {
      this.setState({ error: error.message });
    }
    this.setState({ isAsked: false });
  };

  render({ stage }, { isAsked, error }) {
    const { state, pause, handling, schedule, limits, workers } = stage;
    const reason = lacking("operator");
    const verb = state === "paused" ? "Resume" : "Pause";
    return html`<li class="stage ${state}"><article aria-label=${shown(stage.stage)}>
      <header>
        <h3><bdi>${shown(stage.stage)}</bdi></h3>
        <strong class="state">${STATES[state]}</strong>
        <button type="button" aria-disabled=${isAsked || reason !== null} title=${reason} onClick=${isAsked || reason ? null : this.change}>${verb}<span class="unseen"> ${shown(stage.stage)}</span></button>
      </header>
      ${pause && html`<p class="pause">Paused ${pause.at && html`${since(Date.parse(pause.at) / 1000)} ago `}by <bdi>${shown(pause.by || "somebody")}</bdi>${
        pause.why && html`: <bdi>${shown(pause.why)}</bdi>`}. What is in hand is finished; what comes waits.</p>`}
      ${error && html`<p class="failed" role="alert">${shown(error)}</p>`}
      <p class="way">takes <code><bdi>${shown(stage.key)}</bdi></code> from <a href=${`../queues/?${new URLSearchParams({ filter: `name=${stage.queue.split(/\s/)[0]}` })}`}><bdi>${
        shown(stage.queue)}</bdi></a>${stage.to.length > 0 && html`, publishes ${stage.to.map((key, place) => html`${place > 0 && ", "}<code><bdi>${shown(key)}</bdi></code>`)}`}</p>
      ${schedule && html`<${Schedule} schedule=${schedule} />`}
      ${limits && html`<${Limits} limits=${limits} />`}
      <dl class="figures">
        <${Figure} term="Handled" value=${perSecond(stage.done)} />
        <${Figure} term="Waiting" value=${number(stage.waiting)} />
        <${Figure} term="In hand" value=${number(stage.in_hand)} />
        <${Figure} term="Retried" value=${number(stage.retried)} />
        <${Figure} term="Dead" value=${number(stage.dead)} />
        ${stage.skipped > 0 && html`<${Figure} term="Skipped" value=${number(stage.skipped)} />`}
        <${Figure} term="50 % within" value=${seconds(handling.p50)} />
        <${Figure} term="95 % within" value=${seconds(handling.p95)} />
        <${Figure} term="99 % within" value=${seconds(handling.p99)} />
      </dl>
      ${stage.described && html`<${Message} stage=${stage} />`}
      ${workers.length > 0 && html`<details><summary>${count(workers.length + stage.more_workers, "worker", "workers")}</summary>
        <ul>${workers.map((worker) => html`<li key=${worker.id}><bdi>${shown(worker.host)}</bdi>, <bdi>${shown(worker.id)}</bdi>, process ${worker.pid}: since ${since(worker.started)}, ${
          number(worker.in_hand)} in hand${worker.held_back > 0 && `, ${number(worker.held_back)} of them held back by the limit`}</li>`)}</ul>${stage.more_workers > 0 && html`<p>and ${number(stage.more_workers)} more</p>`}</details>`}
    </article></li>`;
  }
}

// What all workers of the stage together may do, what of it is free, and what waits for it. Props: limits.
function Limits({ limits: {
  by, rate, rate_each: rateEach, tokens, waiting_tokens: forTokens, slots, slots_each: slotsEach, free, waiting_slots: forSlots, waiting_keys: forKeys,
} }) {
  const waits = (messages) => (messages > 0 ? `, ${count(messages, "message waits", "messages wait")} for one` : ", no message waits for one");
  const each = [rateEach && html`<b><bdi>${shown(rateEach)}</bdi></b>`, slotsEach > 0 && html`<b>${number(slotsEach)} at once</b>`].filter(Boolean);
  return html`<div class="limits">
    ${rate && html`<p>Limit of all workers: <b><bdi>${shown(rate)}</bdi></b>. ${Number.isFinite(tokens) ? `${count(tokens, "token is", "tokens are")} free` : "Its tokens are not known"}${waits(forTokens)}.</p>`}
    ${slots > 0 && html`<p>Limit of all workers: <b>${number(slots)} at once</b>. ${count(free, "slot is", "slots are")} free${waits(forSlots)}.</p>`}
    ${by && html`<p>Limit of all workers for each <bdi>${shown(by)}</bdi>: ${each.map((limit, place) => html`${place > 0 && " and "}${limit}`)}. ${
      forKeys > 0 ? count(forKeys, "message waits", "messages wait") : "No message waits"} for ${forKeys > 1 ? "their keys" : "its key"}.</p>`}</div>`;
}

const moment = (unix) => new Date(unix * 1000).toLocaleString();

// When the stage ticks, and its last ticks, the newest first. Props: schedule.
function Schedule({ schedule: { when, next, fired = [] } }) {
  const left = next - Date.now() / 1000;
  return html`<div class="schedule"><p>Ticks <bdi>${shown(when)}</bdi>, next ${left > 0 ? html`in ${duration(left)}` : "when a worker runs"} (${moment(next)})</p>
    ${fired.length > 0 && html`<details><summary>${count(fired.length, "last tick", "last ticks")}</summary>
      <ul>${fired.toReversed().map(([due, at, host]) => html`<li key=${due}>${moment(due)}, published ${seconds(Math.max(0, at - due))} later by <bdi>${shown(host)}</bdi></li>`)}</ul></details>`}
  </div>`;
}

function Figure({ term, value }) {
  return html`<div><dt>${term}</dt><dd>${value}</dd></div>`;
}
