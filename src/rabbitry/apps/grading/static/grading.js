// The page of a course: the pipeline, the submissions with their histories, the form, and the inboxes.
import { Component, html, render } from "../../static/html.js";
import { ask, mark, submit, time } from "./api.js";
import { Inbox } from "./inbox.js";

const STATUSES = ["submitted", "corrected", "validated", "confirmed"];
const ROLES = [
  { name: "demonstrator", title: "Demonstrator" },
  { name: "assistant", title: "Assistant" },
  { name: "coordinator", title: "Coordinator" },
];
const EACH = 1000; // milliseconds between two looks, while somebody looks at the page

const route = () => location.hash.replace(/^#\/?/, "").split("/").map(decodeURIComponent);

class Course extends Component {
  state = { route: route(), overview: null, error: null, tick: 0, find: "", who: null };

  componentDidMount() {
    addEventListener("hashchange", () => this.setState({ route: route() }));
    document.addEventListener("visibilitychange", () => document.hidden || this.load());
    this.loop();
  }

  async loop() {
    if (!document.hidden) await this.load();
    setTimeout(() => this.loop(), EACH);
  }

  async load() {
    const find = this.state.find;
    try {
      const overview = await ask(`overview?find=${encodeURIComponent(find)}`);
      if (find === this.state.find) {
        this.setState({ overview, error: null, tick: this.state.tick + 1, who: this.state.who ?? overview.who });
      }
    } catch (error) {
      this.setState({ error: error.message });
    }
  }

  find = (event) => this.setState({ find: event.currentTarget.value }, () => this.load());

  view([place, name]) {
    const { overview, tick, who, find } = this.state;
    if (place === "submit") return html`<${Submit} modules=${overview.modules} />`;
    if (place === "inbox" && ROLES.some((role) => role.name === name)) {
      return html`<${Inbox} role=${name} tick=${tick} who=${who} setWho=${(given) => this.setState({ who: given })} />`;
    }
    if (place === "submission") return html`<${Submission} key=${name} id=${name} tick=${tick} />`;
    return html`<${Submissions} overview=${overview} find=${find} onFind=${this.find} />`;
  }

  render(_, { route, overview, error }) {
    const [place = "", name] = route;
    return html`
      <header class="top">
        <div class="brand"><img src="../static/icon.svg" alt="" width="28" height="28" /><h1>Assignments</h1></div>
        <nav class="places">
          <a href="../">Machines</a>
          ${[["", "Submissions"], ["submit", "Submit"]].map(([to, title]) =>
            html`<a href=${`#/${to}`} aria-current=${place === to ? "page" : null}>${title}</a>`)}
          ${ROLES.map(({ name: role, title }) => html`<a href=${`#/inbox/${role}`} aria-current=${name === role ? "page" : null}>${title}
            ${overview?.inboxes[role] > 0 && html` <b class="number">${overview.inboxes[role]}</b>`}</a>`)}
        </nav>
      </header>
      <main>
        ${error && html`<p class="notice bad" role="alert">What you see may be old: ${error}.</p>`}
        ${overview && html`<${Pipeline} overview=${overview} />${this.view(route)}`}
      </main>`;
  }
}

function Pipeline({ overview }) {
  return html`<ol class="pipeline">
    ${STATUSES.map((status) => html`<li data-status=${status}><b>${overview.statuses[status] ?? 0}</b> ${status}</li>`)}
    ${overview.outbox > 0 && html`<li class="outbox" title="Decided here; a role that runs with --person sends it.">
      <b>${overview.outbox}</b> to be sent</li>`}
  </ol>`;
}

function Submissions({ overview, find, onFind }) {
  const found = overview.submissions;
  return html`<section class="panel">
    <div class="bar-top"><h2>Submissions</h2>
      <label class="find"><span>Find</span><input type="search" value=${find} onInput=${onFind} placeholder="student or id" /></label></div>
    ${found.length === 0 && html`<p class="nothing">${find ? "None of these." : "No submissions are recorded yet."}</p>`}
    ${found.length > 0 && html`<div class="scroll"><table class="rows">
      <thead><tr><th>Student</th><th>Module</th><th>Attempt</th><th>Status</th><th>Mark</th><th>Changed</th></tr></thead>
      <tbody>${found.map((one) => html`<tr key=${one.id} data-id=${one.id}>
        <td data-label="Student"><a href=${`#/submission/${encodeURIComponent(one.id)}`}>${one.student}</a></td>
        <td data-label="Module">${one.module || "–"}</td>
        <td data-label="Attempt">${one.attempt}${!one.latest && html` <span class="tag">a newer one is there</span>`}</td>
        <td data-label="Status"><span class="status" data-status=${one.status}>${one.status}</span></td>
        <td data-label="Mark">${mark(one.mark, one.out_of)}</td><td data-label="Changed">${time(one.updated_at)}</td>
      </tr>`)}</tbody>
    </table></div>`}
  </section>`;
}

class Submission extends Component {
  state = { found: undefined, error: null };

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

  render({ id }, { found, error }) {
    return html`<section class="panel submission" data-id=${id}>
      ${error && html`<p class="notice bad" role="alert">${error}</p>`}
      ${found === null && html`<p class="nothing">Nothing is recorded of ${id} yet.</p>`}
      ${found && html`
        <h2>Student ${found.student}, ${found.module || "no module"}</h2>
        <p>${found.name} · attempt ${found.attempt}${!found.latest && html` <span class="tag">a newer one is there</span>`}
          · <span class="status" data-status=${found.status}>${found.status}</span> · mark ${mark(found.mark, found.out_of)}</p>
        <ol class="history">${found.history.map((hop) => html`<li>
          <b>${hop.status}</b> by ${hop.role} <i>${hop.who}</i> on ${hop.place}, ${time(hop.at)}
          ${hop.mark !== null && html`, mark ${mark(hop.mark, hop.out_of)}`}
          ${hop.remark !== null && html`<p class="notice warn">${hop.remark}</p>`}
          ${hop.feedback !== null && html`<pre class="feedback">${hop.feedback}</pre>`}
        </li>`)}</ol>`}
    </section>`;
  }
}

class Submit extends Component {
  state = { id: null, error: null, busy: false };

  onSubmit = async (event) => {
    event.preventDefault();
    const form = event.currentTarget;
    this.setState({ busy: true, error: null, id: null });
    try {
      const { id } = await submit(form);
      this.setState({ id, busy: false });
      form.elements.file.value = "";
    } catch (error) {
      this.setState({ error: error.message, busy: false });
    }
  };

  render({ modules }, { id, error, busy }) {
    return html`<section class="panel">
      <h2>Hand in an assignment</h2>
      <form class="submit" onSubmit=${this.onSubmit}>
        <div class="fields">
          <label><span>Student number</span><input name="student" inputmode="numeric" required maxlength="18" /></label>
          <label><span>Module</span><select name="module">${modules.map((name) => html`<option>${name}</option>`)}</select></label>
          <label class="wide"><span>File</span><input name="file" type="file" required /></label>
          <button type="submit" class="primary" disabled=${busy}>Submit</button>
        </div>
      </form>
      ${error && html`<p class="notice bad" role="alert">${error}</p>`}
      ${id && html`<p class="notice good" role="status">Handed in: <a href=${`#/submission/${id}`}>${id}</a></p>`}
    </section>`;
  }
}

const root = document.getElementById("page");
root.replaceChildren();
render(html`<${Course} />`, root);
