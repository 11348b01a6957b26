// A course's page: the pipeline, the submissions with their histories, the form, and the inboxes.
import { Held } from "../../static/held.js";
import { Component, html, render } from "../../static/html.js";
import { Pager } from "../../static/pager.js";
import { report } from "../../static/status.js";
import { Submitted } from "./archive.js";
import { ask, duration, fileURL, mark, me, meet, query, refused, regrades, submit, time } from "./api.js";
import * as drafts from "./drafts.js";
import { Inbox } from "./inbox.js";
import { Filter } from "./lists.js";
import { commentsOf, Marks } from "./marks.js";
import { Regrades } from "./regrades.js";
import { Accept, AnswerRequest, AskAgain, isAcceptable, Requests, Withdraw } from "./requests.js";
import { Similar, SideBySide } from "./similar.js";
import { Stats } from "./stats.js";
import { placeOf, plain, visible } from "./text.js";

const STATUSES = ["submitted", "corrected", "validated", "confirmed"];
const DECLINED = "declined"; // too large, or one too many
const ROLES = [
  { name: "demonstrator", title: "Demonstrator" },
  { name: "assistant", title: "Assistant" },
  { name: "coordinator", title: "Coordinator" },
];
const ANSWERING = ["demonstrator", "assistant"]; // to requests for another look
const EACH = 1000; // milliseconds between two requests while the page is visible

// The parts of the address; a part that is not UTF-8 stays as it is.
const part = (text) => {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
};
const route = () => location.hash.replace(/^#\/?/, "").split("/").map(part);

class Course extends Component {
  state = { route: route(), overview: null, error: null, tick: 0, filter: { find: "", module: "", status: "", page: 0 } };

  componentDidMount() {
    addEventListener("hashchange", () => this.setState({ route: route() }));
    document.addEventListener("visibilitychange", () => document.hidden || this.load());
    this.loop();
  }

  async loop() {
    if (!document.hidden) {
      await this.load();
      await drafts.tidy();
    }
    setTimeout(() => this.loop(), EACH);
  }

  async load() {
    const filter = this.state.filter;
    try {
      const overview = await ask(`overview?${query(filter)}`);
      if (filter !== this.state.filter) return;
      meet(overview.person);
      if (overview.submissions.length === 0 && filter.page > 0) {
        this.show({ page: Math.max(0, Math.ceil(overview.total / overview.each) - 1) });
      } else {
        this.setState({ overview: { ...overview, asked: query(filter) }, error: null, tick: this.state.tick + 1 });
        const state = overview.away ? { kind: "bad", text: "not read", title: overview.away } : { kind: "good", text: "read", at: performance.now() };
        report("Records", state);
      }
    } catch (error) {
      if (filter !== this.state.filter) return;
      this.setState({ error: error.message });
      report("Records", { kind: "bad", text: "not read", title: error.message });
    }
  }

  show = (change) => this.setState({ filter: { ...this.state.filter, page: 0, ...change } }, () => this.load());

  view([place, name, other]) {
    const { overview, tick, filter } = this.state;
    if (place === "submit" && me().submits) return html`<${Submit} modules=${overview.modules} deadlines=${overview.deadlines} />`;
    if (place === "inbox" && me().inboxes.includes(name)) {
      const stamp = `${overview.inboxes[name]} ${overview.newest[name]}`;
      return html`<${Inbox} role=${name} stamp=${stamp} modules=${overview.modules} who=${overview.who} />`;
    }
    if (place === "requests" && me().inboxes.length > 0) return html`<${Requests} stamp=${overview.requests} modules=${overview.modules} />`;
    if (place === "similar" && me().inboxes.length > 0) {
      if (name && other) return html`<${SideBySide} key=${`${name} ${other}`} one=${name} other=${other} />`;
      return html`<${Similar} modules=${overview.modules} />`;
    }
    if (place === "regrades" && regrades()) return html`<${Regrades} modules=${overview.modules} />`;
    if (place === "stats" && me().inboxes.length > 0) return html`<${Stats} modules=${overview.modules} />`;
    if (place === "submission" && name) return html`<${Submission} key=${name} id=${name} tick=${tick} who=${overview.who} />`;
    return html`<${Submissions} overview=${overview} filter=${filter} show=${this.show} />`;
  }

  render(_, { route, overview, error }) {
    const [place = "", name] = route;
    return html`
      <nav class="places tabs" aria-label="Assignments">
        ${[["", "Submissions"], ...(me().submits ? [["submit", "Submit"]] : [])].map(([to, title]) =>
          html`<a href=${`#/${to}`} aria-current=${place === to ? "page" : null}>${title}</a>`)}
        ${ROLES.filter((role) => me().inboxes.includes(role.name)).map(({ name: role, title }) => html`<a href=${`#/inbox/${role}`} aria-current=${name === role ? "page" : null}>${title}
          ${overview?.inboxes[role] > 0 && html` <b class="number">${overview.inboxes[role]}</b>`}</a>`)}
        ${me().inboxes.length > 0 && html`<a href="#/requests" aria-current=${place === "requests" ? "page" : null}>Requests
          ${overview?.requests > 0 && html` <b class="number">${overview.requests}</b>`}</a>
          <a href="#/stats" aria-current=${place === "stats" ? "page" : null}>Statistics</a>
          <a href="#/similar" aria-current=${place === "similar" ? "page" : null}>Similar</a>`}
        ${regrades() && html`<a href="#/regrades" aria-current=${place === "regrades" ? "page" : null}>Mark again</a>`}
      </nav>
      ${error && html`<p class="notice bad" role="alert">The page may be out of date: ${visible(error)}.</p>`}
      ${overview && html`<${Pipeline} overview=${overview} />${this.view(route)}`}`;
  }
}

function Pipeline({ overview }) {
  return html`<ol class="pipeline">
    ${STATUSES.map((status) => html`<li data-status=${status}><b>${overview.statuses[status] ?? (overview.away ? "–" : 0)}</b> ${status}</li>`)}
    ${overview.statuses[DECLINED] > 0 && html`<li data-status=${DECLINED} title="Too large, or too many of one student within an hour.">
      <b>${overview.statuses[DECLINED]}</b> ${DECLINED}</li>`}
    ${overview.outbox > 0 && html`<li class="outbox" title="Decided here; a role that runs with --person publishes it.">
      <b>${overview.outbox}</b> to be sent</li>`}
  </ol>`;
}

function Submissions({ overview, filter, show }) {
  const found = overview.submissions;
  const isFiltered = filter.find !== "" || filter.module !== "" || filter.status !== "";
  return html`<section class="panel">
    <div class="bar-top"><h2>Submissions</h2>
      <${Filter} ...${filter} modules=${overview.modules} statuses=${[...STATUSES, DECLINED]} onChange=${show} /></div>
    ${found.length === 0 && html`<p class="nothing">${isFiltered ? "No matches." : "No submissions are recorded yet."}</p>`}
    ${overview.away && html`<p class="notice warn">Here are no records, and those elsewhere can't be read: ${visible(overview.away)}.</p>`}
    ${found.length > 0 && html`<div class="scroll"><table class="rows">
      <thead><tr><th>Student</th><th>Module</th><th>Attempt</th><th>Status</th><th>Mark</th><th>Changed</th></tr></thead>
      <${Held} as="tbody" asked=${overview.asked} entries=${found} keyOf=${({ id }) => id} draw=${(one) => html`<tr key=${one.id} data-id=${one.id}>
        <td data-label="Student"><a href=${`#/submission/${encodeURIComponent(one.id)}`}>${visible(one.student)}</a></td>
        <td data-label="Module">${one.module ? visible(one.module) : "–"}</td>
        <td data-label="Attempt"><span>${one.attempt}<${Uncounted} of=${one} /></span></td>
        <td data-label="Status"><span class="status" data-status=${one.status}>${visible(one.status)}</span></td>
        <td data-label="Mark"><span>${mark(one.mark, one.out_of)}<${Timing} of=${one} /></span></td>
        <td data-label="Changed">${time(one.updated_at)}</td>
      </tr>`} />
    </table></div>`}
    <${Pager} page=${filter.page} each=${overview.each} total=${overview.total} onPage=${(page) => show({ page })} />
  </section>`;
}

// Whether what tells of the results of a submission is hidden from the page's user, until they are released.
const hides = (of) => Boolean(of.held_until) && me().student !== null;

// Props: of (a submission).
function Uncounted({ of }) {
  return hides(of) || of.counts || of.status === DECLINED ? null : html` <span class="tag">${of.timing ? "does not count" : "superseded"}</span>`;
}

// What a deadline makes of a submission. Props: of (a submission).
function Timing({ of }) {
  if (!of.timing || of.timing === "on time") return null;
  if (of.timing !== "late") return html` <span class="tag">${of.timing}</span>`;
  const off = of.penalty > 0 ? `, ${mark(of.penalty)} off` : "";
  return html` <span class="tag">${duration(of.late_seconds)} late${off}</span>`;
}

class Submission extends Component {
  state = { found: undefined, error: null, text: null };

  componentDidMount() {
    this.load();
  }

  componentDidUpdate(before) {
    if (before.tick !== this.props.tick) this.load();
  }

  async load() {
    try {
      this.setState({ found: await ask(`submissions/${encodeURIComponent(this.props.id)}`), error: null });
    } catch (error) {
      this.setState({ error: error.message });
    }
  }

  // Shows the file's text with the comments on its lines.
  showText = async () => {
    try {
      this.setState({ text: await ask(`texts/${encodeURIComponent(this.props.id)}`) });
    } catch (error) {
      this.setState({ error: error.message });
    }
  };

  render({ id, who }, { found, error, text }) {
    const comments = commentsOf(found?.history ?? []);
    const waiting = found?.requests.find((one) => one.answer === null);
    const reload = () => this.load();
    return html`<section class="panel submission" data-id=${id}>
      ${error && html`<p class="notice bad" role="alert">${visible(error)}</p>`}
      ${found === null && html`<p class="nothing">No submission ${visible(id)} is recorded yet.</p>`}
      ${found && html`
        <h2>Student ${visible(found.student)}, ${found.module ? visible(found.module) : "no module"}</h2>
        <p>${visible(found.name)} · attempt ${found.attempt}<${Uncounted} of=${found} />${" "}
          · <span class="status" data-status=${found.status}>${visible(found.status)}</span> · mark ${mark(found.mark, found.out_of)}
          <${Timing} of=${found} /></p>
        ${found.timing && html`<p>Submitted ${time(found.submitted_at)}, ${found.timing}${found.penalty > 0 && html`; final mark${" "}
          <b class="final">${mark(found.final_mark, found.out_of)}</b>`}. ${hides(found) ? "" : found.counts ? "It counts." : "It does not count."}</p>`}
        ${found.held_until ? html`<p class="notice held">The results are held until ${time(found.held_until)}.</p>`
          : found.releases?.length > 0 && html`<p class="released">The results were released ${time(found.releases[0].until)}.</p>`}
        ${found.withdrawn?.map((one) => html`<p class="withdrawn">Accepted by <i>${visible(one.who)}</i>, ${time(one.at)}: ${visible(one.remark)};
          withdrawn by <i>${visible(one.withdrawn_by)}</i>, ${time(one.withdrawn_at)}: ${visible(one.reason)}</p>`)}
        ${found.accepted && html`<p class="accepted">Accepted by <i>${visible(found.accepted.who)}</i>, ${time(found.accepted.at)}: ${visible(found.accepted.remark)}</p>`}
        ${found.has_file && (refused() ? html`<p class="nothing">To download the file: ${refused()}</p>`
          : html`<p><a class="download" href=${fileURL(found.id)} download>Download the file</a>
            ${text === null && html` <button type="button" onClick=${this.showText}>Show it${comments.length > 0 && `, with the comments (${comments.length})`}</button>`}</p>
            ${text !== null && html`<${Submitted} key=${comments.length} id=${found.id} of=${text} earlier=${comments} mine=${null} />`}`)}
        <ol class="history">${found.history.map((hop) => html`<li>
          <b>${visible(hop.status)}</b> by ${visible(hop.role)} <i>${visible(hop.who)}</i> on ${visible(hop.place)}, ${time(hop.at)}
          ${hop.mark !== null && html`, mark ${mark(hop.mark, hop.out_of)}`}
          ${hop.signer !== null && html` <span class="tag">signed: ${visible(hop.signer)}</span>`}
          ${hop.doubt !== null && html`<p class="notice warn">Not signed by a role that may: ${visible(hop.doubt)}.</p>`}
          ${hop.remark !== null && html`<p class="notice warn">${visible(hop.remark)}</p>`}
          ${hop.feedback !== null && html`<pre class="feedback">${visible(hop.feedback)}</pre>`}
          ${hop.comments.map((one) => html`<p class="said">${visible(placeOf(one))}: ${visible(one.text)}</p>`)}
          <${Marks} of=${hop.marks} comments=${true} />
        </li>`)}</ol>
        ${waiting && ANSWERING.some((role) => me().inboxes.includes(role)) && html`<${AnswerRequest} key=${waiting.id} to=${waiting} who=${who} done=${reload} />`}
        ${found.accepted && regrades() && html`<${Withdraw} key=${found.accepted.at} of=${found} done=${reload} />`}
        ${isAcceptable(found) && regrades() && html`<${Accept} of=${found} done=${reload} />`}
        ${!waiting && found.status === "confirmed" && !found.held_until && me().submits && html`<${AskAgain} of=${found} done=${reload} />`}`}
    </section>`;
  }
}

// What a student reads of a module's deadlines ({opens, due, closes}: {at, seconds} or null). The server counts the seconds:
// the clock of a student may be wrong.
function untilThen({ opens, due, closes }) {
  const until = ({ at, seconds }) => html`<b>${duration(seconds)}</b> (${time(at)})`;
  if (opens?.seconds > 0) return html`Opens in ${until(opens)}.`;
  if (closes?.is_over) return html`Closed since ${time(closes.at)}.`;
  if (closes?.seconds <= 0) return html`Closed ${time(closes.at)}: what is on its way is still taken.`;
  const closing = closes !== null && closes.at !== due.at && html` Closes in ${until(closes)}.`;
  if (due?.seconds > 0) return html`Due in ${until(due)}.${closing}`;
  return html`${due && html`Was due ${time(due.at)}: ${due.is_over ? "what comes now is late" : "submit now"}.`}${closing}`;
}

class Submit extends Component {
  state = { student: "", module: this.props.modules[0], ...drafts.load("submit"), id: null, error: null, busy: false };

  onSubmit = async (event) => {
    event.preventDefault();
    const form = event.currentTarget;
    this.setState({ busy: true, error: null, id: null });
    try {
      const { id } = await submit(form);
      drafts.drop("submit");
      this.setState({ id, busy: false });
      form.elements.file.value = "";
      if (form.elements.anyway) form.elements.anyway.checked = false;
    } catch (error) {
      this.setState({ error: error.message, busy: false });
    }
  };

  type = (name) => (event) => this.setState({ [name]: event.currentTarget.value }, () => {
    drafts.save("submit", { student: this.state.student, module: this.state.module });
  });

  render({ modules, deadlines }, { student, module, id, error, busy }) {
    const reason = refused();
    return html`<section class="panel">
      <h2>Submit an assignment</h2>
      <form class="submit" onSubmit=${this.onSubmit}>
        <div class="fields">
          ${me().student === null
            ? html`<label><span>Student number</span><input name="student" value=${student} onInput=${this.type("student")} required
              maxlength="200" autocomplete="off" /></label>`
            : html`<p>Student ${visible(me().student)}</p>`}
          <label><span>Module</span><select name="module" value=${module} onChange=${this.type("module")}>
            ${modules.map((name) => html`<option value=${name}>${plain(name)}</option>`)}</select></label>
          ${deadlines[module] && html`<p class="wide deadlines" role="timer">${untilThen(deadlines[module])}</p>`}
          <label class="wide"><span>File</span><input name="file" type="file" required /></label>
          ${deadlines[module] && html`<label class="check wide"><input name="anyway" type="checkbox" value="true" /> Hand it in even if it can't
            count: it is kept then</label>`}
          <button type="submit" class="primary" disabled=${busy || reason !== null}>Submit</button>
        </div>
      </form>
      ${reason && html`<p class="notice warn">${reason}</p>`}
      ${error && html`<p class="notice bad" role="alert">${visible(error)}</p>`}
      ${id && html`<p class="notice good" role="status">Submitted: <a href=${`#/submission/${id}`}>${id}</a></p>`}
    </section>`;
  }
}

const root = document.getElementById("page");
root.replaceChildren();
render(html`<${Course} />`, root);
