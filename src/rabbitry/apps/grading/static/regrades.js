// Marking a module again: what would change, the beginning of a run, and what became of it.
import { Component, html } from "../../static/html.js";
import { ask, mark, query, regrade, time, tryRegrade } from "./api.js";
import * as drafts from "./drafts.js";
import { plain, visible } from "./text.js";

const EACH = 1000; // milliseconds between two looks while a dry run or a run is under way
const DRAFT = "regrade";

// The time of a field of type datetime-local, with the browser's offset from UTC.
const moment = (typed) => (typed ? new Date(typed).toISOString() : null);
const number = (count, one) => `${count} ${one}${count === 1 ? "" : "s"}`;

// Props: changes, changed (how many there are).
function Changes({ changes, changed }) {
  if (changed === 0) return html`<p class="nothing">No mark changes.</p>`;
  return html`<div class="scroll"><table class="rows"><thead><tr><th>Student</th><th>Before</th><th>After</th></tr></thead>
    <tbody>${changes.map((one) => html`<tr key=${one.id} data-id=${one.id}>
      <td data-label="Student"><a href=${`#/submission/${encodeURIComponent(one.id)}`}>${visible(one.student)}</a></td>
      <td data-label="Before">${mark(one.old.mark, one.old.out_of)}</td>
      <td data-label="After">${mark(one.new.mark, one.new.out_of)}</td></tr>`)}</tbody></table></div>
    ${changed > changes.length && html`<p>And ${changed - changes.length} more.</p>`}`;
}

// Props: of (a dry run).
function Trial({ of }) {
  const done = of.marked + of.failed;
  const left = Object.entries(of.left_out);
  return html`<div class="trial"><h3>What would change</h3>
    <p role="status">${of.is_running ? `Dry run: ${done} of ${number(of.able, "submission")} marked.` : `Dry run of ${time(of.at)}: ${number(of.able, "submission")}.`}
      ${" "}<b>${number(of.changed, "mark")}</b> would change${of.failed > 0 && `, ${of.failed} could not be marked`}.</p>
    ${of.is_running && html`<progress max=${Math.max(of.able, 1)} value=${done} aria-label="Dry run"></progress>`}
    ${of.error && html`<p class="notice bad" role="alert">${visible(of.error)}</p>`}
    ${left.length > 0 && html`<p class="notice warn">Left out: ${left.map(([why, count]) => `${count} (${why})`).join(", ")}.</p>`}
    ${of.failures.length > 0 && html`<details><summary>Not marked (${of.failed})</summary><ul>
      ${of.failures.map((one) => html`<li><a href=${`#/submission/${encodeURIComponent(one.id)}`}>Student ${visible(one.student)}</a>: ${visible(one.error)}</li>`)}</ul></details>`}
    ${(!of.is_running || of.changed > 0) && html`<${Changes} changes=${of.changes} changed=${of.changed} />`}
  </div>`;
}

// A run with its result, which is asked for while it is open. Props: of, stamp (changes with each look).
class Run extends Component {
  state = { found: null, error: null, isOpen: false };

  componentDidUpdate(before) {
    if (this.state.isOpen && before.stamp !== this.props.stamp) this.load();
  }

  toggle = (event) => this.setState({ isOpen: event.currentTarget.open }, () => this.state.isOpen && this.load());

  async load() {
    try {
      this.setState({ found: await ask(`regrades/${this.props.of.id}`), error: null });
    } catch (error) {
      this.setState({ error: error.message });
    }
  }

  render({ of }, { found, error }) {
    const done = of.reopened + of.lost + of.unconfirmed;
    const what = [of.student && `student ${plain(of.student)}`, of.since && `since ${time(of.since)}`, of.all_attempts && "all attempts"].filter(Boolean);
    return html`<li data-run=${of.id}>
      <p><b>${time(of.begun_at)}</b> by ${visible(of.who)}${what.length > 0 && ` (${what.join(", ")})`}: ${visible(of.remark)}</p>
      <p role="status">${done} of ${number(of.submissions, "submission")} submitted again${of.lost > 0 && `, ${of.lost} without a file left out`}${of.unconfirmed > 0 && `, ${of.unconfirmed} not confirmed any more`}.
        ${of.ended_at === null && (of.is_coordinators ? " A coordinator goes on while one runs." : " A command has begun it: start it again, or begin the same here.")}</p>
      ${of.ended_at === null && html`<progress max=${Math.max(of.submissions, 1)} value=${done} aria-label="Submitted again"></progress>`}
      <details onToggle=${this.toggle}><summary>The result</summary>
        ${error && html`<p class="notice bad" role="alert">${visible(error)}</p>`}
        ${found && html`<p>${found.confirmed} of ${number(of.reopened, "submission")} confirmed again; <b>${number(found.changed, "mark")}</b> changed.</p>
          ${found.confirmed > 0 && html`<${Changes} changes=${found.changes} changed=${found.changed} />`}`}
      </details></li>`;
  }
}

// Props: modules.
export class Regrades extends Component {
  state = {
    module: this.props.modules[0] ?? "", student: "", since: "", all: false, remark: "", ...drafts.load(DRAFT),
    found: null, error: null, said: null, busy: false, asksFor: null, looks: 0,
  };

  componentDidMount() {
    this.load();
  }

  componentWillUnmount() {
    this.isGone = true; // an answer that is still on its way must not ask again
    clearTimeout(this.timer);
  }

  async load() {
    clearTimeout(this.timer);
    const { module } = this.state;
    if (!module) return;
    try {
      const found = await ask(`regrades?${query({ module })}`);
      if (this.isGone || module !== this.state.module) return;
      this.setState({ found, looks: this.state.looks + 1 });
    } catch (error) {
      if (this.isGone || module !== this.state.module) return;
      this.setState({ error: error.message });
    }
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.load(), EACH);
  }

  type = (name) => (event) => {
    const { type, checked, value } = event.currentTarget;
    this.setState({ [name]: type === "checkbox" ? checked : value, asksFor: null, error: null }, () => {
      const { module, student, since, all, remark } = this.state;
      drafts.save(DRAFT, { module, student, since, all, remark });
      if (name === "module") this.setState({ found: null }, () => this.load());
    });
  };

  wanted() {
    const { module, student, since, all, remark } = this.state;
    return { module, student: student.trim() || null, since: moment(since), all_attempts: all, remark: remark.trim() };
  }

  async send(work, said) {
    this.setState({ busy: true, error: null, said: null });
    try {
      await work();
      this.setState({ said, asksFor: null });
    } catch (error) {
      this.setState({ error: `${error.message}.` });
    }
    this.setState({ busy: false });
    this.load();
  }

  begin = () => this.send(async () => {
    await regrade(this.wanted());
    drafts.drop(DRAFT);
    this.setState({ remark: "" });
  }, "Begun: a coordinator submits them again.");

  render({ modules }, { module, student, since, all, remark, found, error, said, busy, asksFor, looks }) {
    const trial = found?.trial ?? null;
    const isOff = busy || found === null;
    return html`<section class="panel regrades">
      <h2>Mark again</h2>
      <p>After a marking scheme was mended: confirmed submissions go through all roles once more, and keep their history.</p>
      <form onSubmit=${(event) => event.preventDefault()}><div class="fields">
        <label><span>Module</span><select name="module" value=${module} onChange=${this.type("module")}>
          ${modules.map((name) => html`<option value=${name}>${plain(name)}</option>`)}</select></label>
        <label><span>Student (all)</span><input name="student" value=${student} maxlength="200" autocomplete="off" onInput=${this.type("student")} /></label>
        <label><span>Submitted since (any time)</span><input name="since" type="datetime-local" value=${since} onInput=${this.type("since")} /></label>
        <label class="check"><input name="all" type="checkbox" checked=${all} onChange=${this.type("all")} /> <span>All attempts, not only those that count</span></label>
        <label class="wide"><span>Reason, for the history</span><input name="remark" value=${remark} maxlength="1000" onInput=${this.type("remark")} /></label>
        <button type="button" disabled=${isOff || trial?.is_running} onClick=${() => this.send(() => tryRegrade(this.wanted()), null)}>Show what would change</button>
        ${asksFor === null
          ? html`<button type="button" class="primary" disabled=${isOff || remark.trim() === ""} onClick=${() => this.setState({ asksFor: module })}>Mark again…</button>`
          : html`<span class="sure" role="group" aria-label="Are you sure?"><button type="button" class="primary" disabled=${isOff} onClick=${this.begin}>Yes, mark ${plain(module)} again</button>
              <button type="button" onClick=${() => this.setState({ asksFor: null })}>No</button></span>`}
      </div></form>
      ${error && html`<p class="notice bad" role="alert">${visible(error)}</p>`}
      ${said && html`<p class="notice good" role="status">${said}</p>`}
      ${trial && html`<${Trial} of=${trial} />`}
      <h3>Runs</h3>
      ${found?.runs.length === 0 && html`<p class="nothing">Nothing of this module was marked again.</p>`}
      ${found?.runs.length > 0 && html`<ul class="runs">${found.runs.map((one) => html`<${Run} key=${one.id} of=${one} stamp=${looks} />`)}</ul>`}
    </section>`;
  }
}
