// Statistics of a module: marks, how long each role takes, what waits for whom, who waits longest.
import { Component, html } from "../../static/html.js";
import { ask, duration, query, time } from "./api.js";
import { Releases } from "./releases.js";
import { plain, visible } from "./text.js";

const percent = (share) => (share === null ? "–" : `${Math.round(share * 100)} %`);
const seconds = (value) => (value === null ? "–" : value < 60 ? `${value.toFixed(1)} s` : duration(value));
const ROLES = { all: "all roles" };

// Props: modules.
export class Stats extends Component {
  state = { module: this.props.modules[0] ?? "", found: undefined, room: null, error: null };

  componentDidMount() {
    this.load();
    this.loadRoom();
  }

  async loadRoom() {
    try {
      this.setState({ room: await ask("room") });
    } catch (error) {
      this.setState({ error: error.message });
    }
  }

  async load() {
    const { module } = this.state;
    if (!module) return;
    try {
      const found = await ask(`stats?${query({ module })}`);
      if (module === this.state.module) this.setState({ found, error: null });
    } catch (error) {
      if (module === this.state.module) this.setState({ error: error.message });
    }
  }

  choose = (event) => this.setState({ module: event.currentTarget.value, found: undefined, error: null }, () => this.load());

  marks({ given, without, classes, mean, median, least, most }) {
    const top = Math.max(...classes, 1);
    return html`<h3>Marks</h3>
      <p>${given} given, ${without} submissions without one${mean !== null && html`; mean <b>${percent(mean)}</b>, median <b>${percent(median)}</b>, from ${percent(least)} to ${percent(most)}`}. Of each student what counts, less penalties.</p>
      ${mean !== null && html`<table class="classes"><caption>Students by marks, in percent of the maximum</caption><tbody>
        ${classes.map((number, place) => html`<tr><th scope="row">${place * 10}–${place * 10 + 10} %</th>
          <td><i style=${`width: ${(100 * number) / top}%`}></i><b>${number}</b></td></tr>`)}
      </tbody></table>`}`;
  }

  render({ modules }, { module, found, room, error }) {
    return html`<section class="panel stats">
      <div class="bar-top"><h2>Statistics</h2>
        <div class="filter"><label class="find"><span>Module</span><select name="module" value=${module} onChange=${this.choose}>
          ${modules.map((name) => html`<option value=${name}>${plain(name)}</option>`)}</select></label></div></div>
      ${error && html`<p class="notice bad" role="alert">${visible(error)}</p>`}
      ${found === null && !error && html`<p class="nothing">Nothing is recorded yet.</p>`}
      ${found && html`<p>${found.submissions} submissions of ${found.students} students${found.declined > 0 && `, ${found.declined} of them declined`}.${room?.used != null && html` The kept files of
          all modules take <b>${(room.used / room.total).toLocaleString([], { style: "percent", maximumFractionDigits: 1 })}</b> of the room for them.`}</p>
        <${Releases} key=${module} module=${module} />
        ${this.marks(found.marks)}
        <h3>How long each role takes</h3>
        <div class="scroll"><table class="rows">
          <thead><tr><th>Role</th><th>Times</th><th>Median</th><th>95 % within</th></tr></thead>
          <tbody>${found.stages.map((one) => html`<tr key=${one.stage}><td data-label="Role">${ROLES[one.stage] ?? one.stage}</td>
            <td data-label="Times">${one.number}</td><td data-label="Median">${seconds(one.p50)}</td>
            <td data-label="95 % within">${seconds(one.p95)}</td></tr>`)}</tbody></table></div>
        <h3>Open work</h3>
        <p>What comes to a role again waits for the person who decided before, and a request for the demonstrator who gave the mark.</p>
        ${found.work.length === 0 ? html`<p class="nothing">Nothing waits, and nobody has decided.</p>` : html`<div class="scroll"><table class="rows work">
          <thead><tr><th>Role</th><th>Who</th><th>Submissions</th><th>Requests</th><th>Since</th><th>Decided</th><th>Last</th></tr></thead>
          <tbody>${found.work.map((one) => html`<tr key=${`${one.role} ${one.who}`}>
            <td data-label="Role">${one.role}</td><td data-label="Who">${one.who === null ? "anybody" : visible(one.who)}</td>
            <td data-label="Submissions">${one.waiting}</td><td data-label="Requests">${one.requests}</td>
            <td data-label="Since">${seconds(one.seconds)}</td><td data-label="Decided">${one.decided}</td>
            <td data-label="Last">${one.last_at ? time(one.last_at) : "–"}</td></tr>`)}</tbody></table></div>`}
        <h3>Who waits longest</h3>
        ${found.waiting.length === 0 ? html`<p class="nothing">Nobody waits.</p>` : html`<div class="scroll"><table class="rows">
          <thead><tr><th>Student</th><th>Status</th><th>Waits for</th><th>Since</th></tr></thead>
          <tbody>${found.waiting.map((one) => html`<tr key=${one.id}>
            <td data-label="Student"><a href=${`#/submission/${encodeURIComponent(one.id)}`}>${visible(one.student)}</a></td>
            <td data-label="Status">${visible(one.status)}</td><td data-label="Waits for">${one.role ?? "–"}</td>
            <td data-label="Since">${seconds(one.seconds)}</td></tr>`)}</tbody></table></div>`}`}
    </section>`;
  }
}
