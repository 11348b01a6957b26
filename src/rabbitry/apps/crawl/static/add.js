// The form that adds addresses to the crawl.
import { lacking } from "../../static/access.js";
import { shown } from "../../static/format.js";
import { Component, html } from "../../static/html.js";
import { command } from "./asked.js";
import { Address, Outcome } from "./text.js";

const EMPTY = { urls: "", depth: "", scope: "same", allow: "", limit: "", delay: "", contact: "" };
const number = (text) => (text.trim() === "" ? null : Number(text));

// Props: words.
export class Add extends Component {
  state = { ...EMPTY, answer: null, error: null, busy: false };

  onSubmit = async (event) => {
    event.preventDefault();
    const { urls, depth, scope, allow, limit, delay, contact } = this.state;
    this.setState({ busy: true, error: null, answer: null });
    try {
      const answer = await command("add", {
        urls: urls.split(/\s+/).filter(Boolean),
        depth: number(depth), limit: number(limit), delay: number(delay), contact: contact.trim() || null,
        same_host: scope === "same", allow: scope === "allow" ? allow.split(/[\s,]+/).filter(Boolean) : [],
      });
      this.setState({ answer, urls: "" });
    } catch (error) {
      this.setState({ error: error.message });
    }
    this.setState({ busy: false });
  };

  type = (name) => (event) => this.setState({ [name]: event.currentTarget.value });

  field = (title, name, more, note) => html`<label><span>${title}</span>
    <input name=${name} value=${this.state[name]} onInput=${this.type(name)} ...${more} />${note && html`<small>${note}</small>`}</label>`;

  render({ words }, { urls, scope, answer, error, busy }) {
    const reason = lacking("operator");
    return html`<section class="panel" id="add"><h2>Add addresses</h2>
      <form class="fields" onSubmit=${this.onSubmit}>
        <label class="wide"><span>Addresses, one a line</span><textarea name="urls" rows="4" required value=${urls} onInput=${this.type("urls")}
          placeholder="https://example.org/" spellcheck=${false}></textarea></label>
        <label><span>Follow links</span><select name="scope" value=${scope} onChange=${this.type("scope")}>
          <option value="same">on the same hosts</option><option value="allow">on these domains</option><option value="all">everywhere</option></select></label>
        ${scope === "allow" && this.field("Domains", "allow", { required: true, placeholder: "example.org, example.net" })}
        ${this.field("Links away from the start", "depth", { type: "number", min: 0, step: 1, placeholder: "unlimited" })}
        ${this.field("Most pages", "limit", { type: "number", min: 1, step: 1, placeholder: "unlimited" })}
        ${this.field("Seconds between requests", "delay", { type: "number", min: 0, step: "any", placeholder: "1" })}
        ${this.field("Contact", "contact", { maxlength: 300, placeholder: "you@example.org" }, "A mail address or page where sites can reach you. Public sites need it.")}
        <button type="submit" class="primary" disabled=${busy || reason !== null}>Add</button>
      </form>
      ${reason && html`<p class="notice warn">${reason}</p>`}
      ${error && html`<p class="notice bad" role="alert">${shown(error)}</p>`}
      ${answer && html`<div role="status">
        ${answer.said?.map((line) => html`<p>${shown(line)}</p>`)}
        <ul class="outcomes">${answer.addresses?.map(({ url, outcome, detail }) => html`<li><${Outcome} name=${outcome} words=${words} />
          <${Address} url=${url} />${detail && html` <span class="note">${shown(detail)}</span>`}</li>`)}</ul>
        ${!answer.said?.length && !answer.addresses?.length && html`<p>Added.</p>`}</div>`}
    </section>`;
  }
}
