// Requests for another look: the list of those that wait, the form of who asks, and the form of who answers.
import { Component, html } from "../../static/html.js";
import { Pager } from "../../static/pager.js";
import { accept, answer, ask, askAgain, mark, me, query, refused, time, withdraw } from "./api.js";
import * as drafts from "./drafts.js";
import { Filter } from "./lists.js";
import { visible } from "./text.js";

// Props: stamp (changes with the number of requests), modules.
export class Requests extends Component {
  state = { requests: null, total: 0, each: 1, page: 0, find: "", module: "", error: null };

  componentDidMount() {
    this.load();
  }

  componentDidUpdate(before) {
    if (before.stamp !== this.props.stamp) this.load();
  }

  async load() {
    const { find, module, page } = this.state;
    const isMeant = () => find === this.state.find && module === this.state.module && page === this.state.page;
    try {
      const found = await ask(`requests?${query({ find, module, page })}`);
      if (isMeant()) this.setState({ ...found, error: null });
    } catch (error) {
      if (isMeant()) this.setState({ error: error.message });
    }
  }

  show = (change) => this.setState({ page: 0, ...change }, () => this.load());

  render({ modules }, { requests, total, each, page, find, module, error }) {
    return html`<section class="panel">
      <div class="bar-top"><h2>Requests for another look</h2>
        <${Filter} find=${find} module=${module} modules=${modules} onChange=${this.show} /></div>
      ${error && html`<p class="notice bad" role="alert">${visible(error)}</p>`}
      ${requests?.length === 0 && html`<p class="nothing">${find || module ? "No matches." : "No request waits for an answer."}</p>`}
      ${requests?.length > 0 && html`<div class="scroll"><table class="rows">
        <thead><tr><th>Student</th><th>Module</th><th>Mark</th><th>Asked</th><th>Reason</th></tr></thead>
        <tbody>${requests.map((one) => html`<tr key=${one.id} data-id=${one.id}>
          <td data-label="Student"><a href=${`#/submission/${encodeURIComponent(one.submission)}`}>${visible(one.student)}</a></td>
          <td data-label="Module">${one.module ? visible(one.module) : "–"}</td>
          <td data-label="Mark">${mark(one.mark, one.out_of)}</td>
          <td data-label="Asked">${time(one.asked_at)}</td>
          <td data-label="Reason" class="long">${visible(one.reason)}</td>
        </tr>`)}</tbody>
      </table></div>`}
      <${Pager} page=${page} each=${each} total=${total} onPage=${(to) => this.show({ page: to })} />
    </section>`;
  }
}

// What sends typed text: a form with a draft that outlives a reload, an error, and buttons that wait for the answer.
class Sending extends Component {
  state = { error: null, busy: false };

  type = (name) => (event) => this.setState({ [name]: event.currentTarget.value }, () => drafts.save(this.key, { reason: this.state.reason ?? "", remark: this.state.remark ?? "" }));

  async send(work) {
    this.setState({ busy: true, error: null });
    try {
      await work();
      drafts.drop(this.key);
      this.props.done();
    } catch (error) {
      this.setState({ error: `${error.message}. Your input is kept.` });
    }
    this.setState({ busy: false });
  }
}

// Props: of (a confirmed submission), done().
export class AskAgain extends Sending {
  key = `request.${this.props.of.id}`;

  constructor(props) {
    super(props);
    this.state = { ...this.state, reason: drafts.load(`request.${props.of.id}`)?.reason ?? "" };
  }

  render({ of }, { reason, busy, error }) {
    const lacks = refused();
    return html`<details class="again" open=${reason !== ""}><summary>Ask for another look</summary>
      <form onSubmit=${(event) => {
        event.preventDefault();
        this.send(() => askAgain(of.id, { student: of.student, reason: reason.trim() }));
      }}>
        <div class="fields"><label class="wide"><span>What should be looked at, and why</span>
          <textarea name="reason" rows="3" maxlength="10000" required value=${reason} onInput=${this.type("reason")}></textarea></label>
          <button type="submit" class="primary" disabled=${busy || lacks !== null}>Ask</button></div>
        ${lacks && html`<p class="notice warn">${lacks}</p>`}
        ${error && html`<p class="notice bad" role="alert">${visible(error)}</p>`}
      </form></details>`;
  }
}

// Whether a submission is one that a coordinator may accept: it was declined, or can't count by the deadlines.
export const isAcceptable = ({ status, timing }) => status === "declined" || ![undefined, null, "on time", "late"].includes(timing);

// Props: of (a submission that can be accepted), done().
export class Accept extends Sending {
  key = `accept.${this.props.of.id}`;

  constructor(props) {
    super(props);
    this.state = { ...this.state, remark: drafts.load(`accept.${props.of.id}`)?.remark ?? "" };
  }

  render({ of }, { remark, busy, error }) {
    if (of.status === "declined" && of.sha256 === null) return html`<p class="nothing">Its file is not kept, so it can't be accepted.</p>`;
    return html`<form class="accept" onSubmit=${(event) => {
      event.preventDefault();
      this.send(() => accept(of.id, { remark: remark.trim() }));
    }}>
      <div class="fields"><label class="wide"><span>The reason to accept it</span>
        <textarea name="remark" rows="2" maxlength="10000" required value=${remark} onInput=${this.type("remark")}></textarea></label>
        <button type="submit" class="primary" disabled=${busy}>Accept it</button></div>
      ${error && html`<p class="notice bad" role="alert">${visible(error)}</p>`}
    </form>`;
  }
}

// Props: of (a submission that was accepted against the deadlines), done().
export class Withdraw extends Sending {
  key = `withdraw.${this.props.of.id}`;

  constructor(props) {
    super(props);
    this.state = { ...this.state, remark: drafts.load(`withdraw.${props.of.id}`)?.remark ?? "" };
  }

  render({ of }, { remark, busy, error }) {
    return html`<details class="withdraw" open=${remark !== ""}><summary>Withdraw the acceptance</summary>
      <form onSubmit=${(event) => {
        event.preventDefault();
        this.send(() => withdraw(of.id, { remark: remark.trim(), accepted_at: of.accepted.at }));
      }}>
        <div class="fields"><label class="wide"><span>The reason to withdraw it</span>
          <textarea name="remark" rows="2" maxlength="10000" required value=${remark} onInput=${this.type("remark")}></textarea></label>
          <button type="submit" class="primary" disabled=${busy}>Withdraw it</button></div>
        ${error && html`<p class="notice bad" role="alert">${visible(error)}</p>`}
      </form></details>`;
  }
}

// Props: to (a request that waits), who, done().
export class AnswerRequest extends Sending {
  key = `answer.${this.props.to.id}`;

  constructor(props) {
    super(props);
    const remark = drafts.load(`answer.${props.to.id}`)?.remark ?? "";
    this.state = { ...this.state, remark, role: me().role ?? "demonstrator", who: drafts.load("who") ?? props.who ?? "" };
  }

  give = (given) => () => this.send(() => {
    const { role, who, remark } = this.state;
    drafts.save("who", who);
    return answer(this.props.to.id, { answer: given, role, who: who.trim(), remark: remark.trim() });
  });

  render({ to }, { remark, role, who, busy, error }) {
    const lacks = refused();
    const isOff = busy || lacks !== null;
    return html`<form class="answer" onSubmit=${(event) => event.preventDefault()}>
      <h3>Another look was asked for</h3>
      <p class="notice warn">${visible(to.reason)}</p>
      <div class="fields">
        <label class="wide"><span>Remark (needed to refuse)</span>
          <textarea name="remark" rows="2" value=${remark} onInput=${this.type("remark")}></textarea></label>
        ${me().role === null && html`<label><span>As</span><select name="role" value=${role} onChange=${(event) => this.setState({ role: event.currentTarget.value })}>
          <option value="demonstrator">demonstrator</option><option value="assistant">assistant</option></select></label>`}
        ${me().name === null && html`<label><span>Your name</span><input name="who" value=${who} maxlength="100" autocomplete="name"
          onInput=${(event) => this.setState({ who: event.currentTarget.value })} /></label>`}
        <button type="button" class="primary" disabled=${isOff} onClick=${this.give("upheld")}>Uphold: mark it again</button>
        <button type="button" disabled=${isOff} onClick=${this.give("refused")}>Refuse</button>
      </div>
      ${lacks && html`<p class="notice warn">${lacks}</p>`}
      ${error && html`<p class="notice bad" role="alert">${visible(error)}</p>`}
    </form>`;
  }
}
