// The form in which a person decides on one assignment. Only a click on a button decides.
import { Component, createRef, html } from "../../static/html.js";
import { asSent, Submitted } from "./archive.js";
import { ask, decide, fileURL, mark, me, refused } from "./api.js";
import { Changes } from "./changes.js";
import * as drafts from "./drafts.js";
import { Marks } from "./marks.js";
import { visible } from "./text.js";

const TITLES = { correct: "Correct", validate: "Validate", "send-back": "Send back", confirm: "Confirm" };
const FIELDS = ["mark", "out_of", "feedback", "remark"];

// Parses a typed number with a point or a comma; null if the field is empty, NaN if it is not a number.
function number(text) {
  const typed = text.trim().replace(",", ".");
  if (typed === "") return null;
  return /^\d+(\.\d*)?$|^\.\d+$/.test(typed) ? Number(typed) : NaN;
}

const shown = (value) => (typeof value === "number" ? String(Math.round(value * 100) / 100) : "");

// The form's initial values: of an assignment that was sent back, the previous round's mark and feedback.
function initial(item) {
  const isAgain = item.actions.includes("correct") && item.sent_back > 0;
  return {
    mark: isAgain ? shown(item.mark) : "",
    out_of: isAgain ? shown(item.out_of) : "",
    feedback: isAgain && item.rubric.length === 0 ? (item.feedback ?? "") : "", // by a rubric it is written anew
    remark: "",
  };
}

// Props: role, item (as it was opened), stamp (changes with the inbox), done(said), close().
export class Decide extends Component {
  form = createRef();

  constructor(props) {
    super(props);
    const { role, item } = props;
    this.key = drafts.keyOf(role, item.id);
    const draft = drafts.opened(role, item.id, item.item);
    this.state = {
      ...initial(item),
      ...Object.fromEntries(FIELDS.filter((name) => typeof draft?.[name] === "string").map((name) => [name, draft[name]])),
      scores: Object.fromEntries(item.rubric.map(({ name }) => [name, { points: "", comments: [], ...draft?.scores?.[name] }])),
      comments: draft?.comments ?? {},
      who: drafts.load("who") ?? props.who ?? "",
      isOlder: draft !== null && draft.item !== item.item,
      changed: null,
      asks: false,
      isCompared: false,
      before: { id: null }, // the student's attempt before; error: why it can't be looked up
      path: null, // of the file that is shown, in an archive
      error: null,
      busy: false,
    };
  }

  componentDidMount() {
    this.form.current.scrollIntoView({ block: "start" });
    addEventListener("keydown", this.onKey);
    this.lookBefore();
  }

  // The records may be elsewhere, and slow to ask: the form is there without.
  async lookBefore() {
    const { role, item } = this.props;
    try {
      this.setState({ before: await ask(`inbox/${role}/${encodeURIComponent(item.id)}/before`) });
    } catch (error) {
      if (error.status !== 404) this.setState({ before: { id: null, error: error.message } });
    }
  }

  componentWillUnmount() {
    removeEventListener("keydown", this.onKey);
  }

  onKey = (event) => {
    const isTyping = event.target.closest?.("input, textarea, select, dialog");
    if (isTyping || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "d" && this.state.before.id) this.compare();
  };

  compare = () => this.setState(({ isCompared }) => ({ isCompared: !isCompared }));

  componentDidUpdate(before) {
    if (before.stamp !== this.props.stamp) this.look();
  }

  // Checks whether the opened item still waits; another person's decision is shown here, and typed text stays.
  async look() {
    const { role, item } = this.props;
    try {
      const found = await ask(`inbox/${role}/${encodeURIComponent(item.id)}`);
      this.setState({ changed: found.item === item.item ? null : "It was sent again after you opened it: open it again." });
    } catch (error) {
      if (error.status === 404) this.setState({ changed: `${error.message}.` });
    }
  }

  type = (name) => (event) => {
    const value = event.currentTarget.value;
    this.setState({ [name]: value, asks: false }, () => (name === "who" ? drafts.save("who", value) : this.keep()));
  };

  keep() {
    const typed = Object.fromEntries([...FIELDS, "scores", "comments"].map((field) => [field, this.state[field]]));
    drafts.save(this.key, { ...typed, item: this.props.item.item });
  }

  // Changes the judgement by a criterion.
  score(name, change) {
    this.setState(({ scores }) => ({ scores: { ...scores, [name]: { ...scores[name], ...change } } }), () => this.keep());
  }

  onPath = (path) => this.setState({ path });

  comment = (comments) => this.setState({ comments }, () => this.keep());

  // The judgement by the rubric as the server takes it, or the text of what is wrong with it.
  scores() {
    const scores = {};
    for (const { name } of this.props.item.rubric) {
      const { points, comments } = this.state.scores[name];
      const given = number(points);
      if (given === null || Number.isNaN(given)) return `“${points}” is not a number of points for ${name}`;
      scores[name] = { points: given, comments };
    }
    return scores;
  }

  act = (action, isSure = false) => async () => {
    const { role, item } = this.props;
    const verdict = { action, item: item.item, who: this.state.who.trim(), comments: asSent(this.state.comments) };
    if (action === "correct" && item.rubric.length > 0) {
      const scores = this.scores();
      if (typeof scores === "string") {
        this.setState({ error: `${scores}.` });
        return;
      }
      Object.assign(verdict, { scores, feedback: this.state.feedback.trim() || null });
    } else if (action === "correct") {
      Object.assign(verdict, { mark: number(this.state.mark), out_of: number(this.state.out_of), feedback: this.state.feedback.trim() || null });
      if (Number.isNaN(verdict.mark) || Number.isNaN(verdict.out_of)) {
        this.setState({ error: `“${Number.isNaN(verdict.mark) ? this.state.mark : this.state.out_of}” is not a number.` });
        return;
      }
      if (verdict.mark === null && !isSure) {
        this.setState({ asks: true, error: null });
        return;
      }
    }
    if (action === "send-back") verdict.remark = this.state.remark.trim();
    this.setState({ busy: true, error: null, asks: false });
    try {
      const { status } = await decide(role, item.id, verdict);
      drafts.sent(role, item.id);
      const waits = action === "correct" && status !== "corrected"; // several demonstrators mark it
      this.props.done(`Student ${item.student}: ${action === "send-back" ? "sent back" : waits ? "marked, waits for others" : status}.`);
    } catch (error) {
      this.setState({ error: `${error.message}. Your input is kept.`, busy: false });
    }
  };

  discard = () => {
    drafts.drop(this.key);
    this.props.close();
  };

  field(name, label, options = {}) {
    const Tag = options.rows ? "textarea" : "input";
    return html`<label class=${options.rows ? "wide" : ""}><span>${label}</span>
      <${Tag} name=${name} value=${this.state[name]} onInput=${this.type(name)} autocomplete="off" ...${options} /></label>`;
  }

  criterion({ name, points, comments }) {
    const given = this.state.scores[name];
    const choose = (comment) => (event) => {
      const others = given.comments.filter((one) => one !== comment);
      this.score(name, { comments: event.currentTarget.checked ? [...others, comment] : others });
    };
    return html`<fieldset class="criterion"><legend>${visible(name)}</legend>
      <label><span>Points</span><input name=${`points of ${name}`} value=${given.points} inputmode="decimal" size="6" autocomplete="off"
        onInput=${(event) => this.score(name, { points: event.currentTarget.value })} /> of ${points}</label>
      ${comments.map((comment) => html`<label class="comment"><input type="checkbox" checked=${given.comments.includes(comment)}
        onChange=${choose(comment)} /> <span>${visible(comment)}</span></label>`)}
    </fieldset>`;
  }

  render({ role, item, close }, { asks, before, busy, changed, comments, error, isCompared, isOlder, path }) {
    const can = (action) => item.actions.includes(action);
    const reason = refused();
    return html`<form class="decide" ref=${this.form} onSubmit=${(event) => event.preventDefault()}>
      <h3>Student ${visible(item.student)}, ${item.module ? visible(item.module) : "no module"} <small>${item.id}</small></h3>
      <p><a class="download" href=${fileURL(item.id)} download>Download ${item.name ? visible(item.name) : "the file"}</a>
        ${before.id && html` · <button type="button" aria-expanded=${isCompared} onClick=${this.compare}>Changes since the attempt
          before <kbd>d</kbd></button> · <a href=${`#/similar/${encodeURIComponent(before.id)}/${encodeURIComponent(item.id)}`}
          target="_blank" rel="noopener">Similar parts of both</a>`}</p>
      ${before.error && html`<p class="nothing">The attempt before can't be looked up: ${visible(before.error)}.</p>`}
      ${isCompared && html`<${Changes} id=${item.id} path=${path} />`}
      <${Submitted} id=${item.id} of=${item} earlier=${item.comments} mine=${comments} change=${this.comment} onPath=${this.onPath} />
      ${item.remarks.map((remark) => html`<p class="notice warn"><b>Sent back:</b> ${visible(remark)}</p>`)}
      ${item.mark !== null && html`<p><b>Mark:</b> ${mark(item.mark, item.out_of)}</p>`}
      ${item.marks.length > 0 ? html`<${Marks} of=${item.marks} comments=${false} />`
        : item.feedback !== null && html`<pre class="feedback">${visible(item.feedback)}</pre>`}
      ${item.is_marked && html`<p class="notice warn">You have marked it, and others have still to.
        ${item.is_final ? " Your mark is final." : " A mark that you give now replaces yours."}</p>`}
      ${item.is_final && !item.is_marked && html`<p class="notice warn">A mark is final once you give it: it can't be changed or taken back.</p>`}
      ${isOlder && html`<p class="notice warn">You typed the text below before this assignment was sent again.</p>`}
      ${changed && html`<p class="notice warn changed" role="status">${visible(changed)}</p>`}
      ${can("correct") && item.rubric.map((criterion) => this.criterion(criterion))}
      ${can("correct") && html`<div class="fields">
        ${item.rubric.length === 0 && this.field("mark", "Mark", { inputmode: "decimal", size: 6 })}
        ${item.rubric.length === 0 && this.field("out_of", "out of", { inputmode: "decimal", size: 6 })}
        ${this.field("feedback", "Feedback", { rows: 4 })}
      </div>`}
      ${can("send-back") && html`<div class="fields">${this.field("remark", "Remark, if you send it back", { rows: 2 })}</div>`}
      <div class="fields">
        ${me().name === null && this.field("who", "Your name", { maxlength: 100, autocomplete: "name" })}
        ${item.actions.map((action) => html`<button type="button" class=${action === "send-back" ? "" : "primary"} disabled=${busy || reason !== null || (item.is_final && item.is_marked)}
          onClick=${this.act(action)}>${TITLES[action] ?? action}</button>`)}
        <button type="button" disabled=${busy} onClick=${close}>Close</button>
        ${changed && html`<button type="button" disabled=${busy} onClick=${this.discard}>Discard</button>`}
      </div>
      ${reason && html`<p class="notice warn">${reason}</p>`}
      ${asks && html`<p class="notice warn question" role="alert">There is no mark. <button type="button" disabled=${busy}
        onClick=${this.act("correct", true)}>Correct without a mark</button></p>`}
      ${error && html`<p class="notice bad" role="alert">${visible(error)}</p>`}
    </form>`;
  }
}
