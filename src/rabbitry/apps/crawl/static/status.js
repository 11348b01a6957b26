// The progress of the crawl as the keeper reports it; pause and resume.
import { lacking } from "../../static/access.js";
import { bytes, count, shown } from "../../static/format.js";
import { Component, html } from "../../static/html.js";
import { Asked, command } from "./asked.js";
import { perSecond } from "./live.js";
import { Outcome } from "./text.js";

// Props: words (the meanings of outcomes).
export class Status extends Component {
  state = { busy: false, error: null };

  switch = async (isPaused, reload) => {
    this.setState({ busy: true, error: null });
    try {
      await command(isPaused ? "resume" : "pause");
      await reload();
    } catch (error) {
      this.setState({ error: error.message });
    }
    this.setState({ busy: false });
  };

  draw = (status, { reload }) => {
    const { addresses = {}, outcomes = {} } = status;
    const { is_paused: isPaused = false, pages = 0, documents = 0, rate = 0, hosts = 0 } = status;
    const reason = lacking("operator");
    const named = Object.entries(outcomes).sort((a, b) => b[1] - a[1] || (a[0] < b[0] ? -1 : 1));
    const figures = [
      ["queued", addresses.queued ?? 0, `${(addresses.sent ?? 0).toLocaleString("en")} out, ${(addresses.done ?? 0).toLocaleString("en")} done`],
      ["pages", pages, `${perSecond(rate)} a second over the last minute`],
      ["documents", documents, "in the index"],
      ["hosts", hosts, `${(status.hosts_out ?? 0).toLocaleString("en")} out, ${(status.hosts_waiting ?? 0).toLocaleString("en")} not due yet`],
    ];
    return html`
      <div class="bar-top"><p class="running" data-paused=${isPaused}>${isPaused ? "Paused: no batches are sent." : "Running."}</p>
        <button type="button" disabled=${this.state.busy || reason !== null} onClick=${() => this.switch(isPaused, reload)}>${isPaused ? "Resume" : "Pause"}</button></div>
      ${reason && html`<p class="notice warn">${reason}</p>`}
      ${this.state.error && html`<p class="notice bad" role="alert">${shown(this.state.error)}</p>`}
      <dl class="sums">${figures.map(([name, value, note]) =>
        html`<div data-sum=${name}><dt>${name}</dt><dd><b>${value.toLocaleString("en")}</b><span class="note">${note}</span></dd></div>`)}</dl>
      ${status.size > 0 && html`<p>${bytes(status.wire ?? 0)} came from the sites, ${bytes(status.size)} decompressed;
        on the broker the pages took ${bytes(status.carried ?? 0)}.</p>`}
      ${named.length > 0 && html`<h3>${count(named.length, "outcome", "outcomes")}</h3><ul class="outcomes">${named.map(([name, number]) =>
        html`<li><${Outcome} name=${name} words=${this.props.words} /> <b>${number.toLocaleString("en")}</b>${" "}
          <span class="note">${this.props.words?.[name]}</span></li>`)}</ul>`}`;
  };

  render() {
    return html`<section class="panel" id="status"><h2>Keeper</h2><${Asked} path="status" every=${2} draw=${this.draw} /></section>`;
  }
}
