// A replay or drop that runs, or has ended.
import { post } from "../ask.js";
import { clock, count, shown } from "../format.js";
import { Component, html } from "../html.js";

const VERBS = { replay: ["Replaying", "Replayed"], drop: ["Dropping", "Dropped"] };
const ENDS = { done: "", cancelled: ", then cancelled", failed: ", then it failed" };

// Props: job, of the topic `replays`.
export class Job extends Component {
  state = { error: null, isAsked: false };

  steer = async (action) => {
    const { vhost, app } = this.props.job;
    this.setState({ isAsked: true, error: null });
    try {
      await post(action, { vhost, app });
    } catch (error) {
      this.setState({ error: error.message });
    }
    this.setState({ isAsked: false });
  };

  render({ job }, { error, isAsked }) {
    const { action, state, done, expected, problems, stayed, rate } = job;
    const runs = state === "running" || state === "paused";
    const told = expected === null || !runs ? done.toLocaleString("en") : `${done.toLocaleString("en")} of ${Math.max(done, expected).toLocaleString("en")}`;
    return html`<div class="job" role="group" aria-label="Replay or drop">
      <p role="status"><b>${VERBS[action][runs ? 0 : 1]} ${told}</b>${runs ? `${state === "paused" ? ", paused" : ""}${rate ? `, at most ${count(rate, "message", "messages")} a second` : ""}` : ENDS[state]}${job.error && `: ${shown(job.error)}`}
        <span class="note"> ${shown(job.of)}; by <bdi>${shown(job.who)}</bdi> at ${clock(job.since)}</span></p>
      ${runs && expected > 0 && html`<progress value=${done} max=${Math.max(done, expected)} aria-label="Progress"></progress>`}
      ${runs && html`<p class="tools">${state === "paused" ? html`<button type="button" disabled=${isAsked} onClick=${() => this.steer("resume")}>Resume</button>`
        : html`<button type="button" disabled=${isAsked} onClick=${() => this.steer("pause")}>Pause</button>`}
        <button type="button" disabled=${isAsked} onClick=${() => this.steer("cancel")}>Cancel</button></p>`}
      ${stayed > 0 && html`<p>${count(stayed, "message", "messages")} could not be published, and ${stayed === 1 ? "stays" : "stay"}:</p>
        <ul class="problems">${problems.map((text) => html`<li><bdi>${shown(text)}</bdi></li>`)}</ul>`}
      ${error && html`<p class="failed" role="alert">${error}</p>`}
    </div>`;
  }
}
