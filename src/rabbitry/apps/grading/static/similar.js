// Similar solutions: the pairs of a module, and two texts side by side with the parts that match.
import { Component, createRef, html } from "../../static/html.js";
import { ask, compare, query, refused, time } from "./api.js";
import { plain, visible } from "./text.js";

const EACH = 1000; // milliseconds between two requests while a comparison runs
const percent = (share) => `${Math.round(share * 100)} %`;

// Props: modules.
export class Similar extends Component {
  state = { module: this.props.modules[0] ?? "", found: null, error: null };

  componentDidMount() {
    this.load();
  }

  componentWillUnmount() {
    this.isGone = true; // an answer that is still on its way must not ask again
    clearTimeout(this.timer);
  }

  async load(start = false) {
    clearTimeout(this.timer);
    const { module } = this.state;
    if (refused() || !module) return;
    try {
      const found = await (start ? compare({ module }) : ask(`similar?${query({ module })}`));
      if (this.isGone || module !== this.state.module) return;
      this.setState({ found, error: null });
      this.askAgain(found.is_running);
    } catch (error) {
      if (this.isGone || module !== this.state.module) return;
      this.setState({ error: error.message });
      this.askAgain(this.state.found?.is_running); // it goes on, whatever became of one request
    }
  }

  askAgain(isRunning) {
    clearTimeout(this.timer);
    if (isRunning) this.timer = setTimeout(() => this.load(), EACH);
  }

  choose = (event) => this.setState({ module: event.currentTarget.value, found: null, error: null }, () => this.load());

  render({ modules }, { module, found, error }) {
    const lacks = refused();
    const leftOut = Object.entries(found?.left_out ?? {});
    return html`<section class="panel similar">
      <div class="bar-top"><h2>Similar solutions</h2>
        <div class="filter"><label class="find"><span>Module</span><select name="module" value=${module} onChange=${this.choose}>
          ${modules.map((name) => html`<option value=${name}>${plain(name)}</option>`)}</select></label>
          <button type="button" class="primary" disabled=${lacks !== null || found === null || found.is_running}
            onClick=${() => this.load(true)}>${found?.is_running ? "Comparing…" : found?.at ? "Compare again" : "Compare"}</button></div></div>
      ${lacks && html`<p class="notice warn">${lacks}</p>`}
      ${(error ?? found?.error) && html`<p class="notice bad" role="alert">${visible(error ?? found.error)}</p>`}
      ${found?.at && html`<p role="status">${found.compared} submissions compared, ${time(found.at)}: of each student the one that counts.
        Names, numbers, texts, comments and the order of functions make no difference. A pair is a reason to look at both, and no proof.</p>`}
      ${found?.at && found.pairs.length === 0 && html`<p class="nothing">No two are similar.</p>`}
      ${found?.pairs.length > 0 && html`<div class="scroll"><table class="rows">
        <thead><tr><th>Similar</th><th>Of the shorter</th><th>Student</th><th>Student</th><th></th></tr></thead>
        <tbody>${found.pairs.map(({ one, other, similarity, contained }) => html`<tr key=${`${one.id} ${other.id}`}>
          <td data-label="Similar"><b>${percent(similarity)}</b></td><td data-label="Of the shorter">${percent(contained)}</td>
          <td data-label="Student">${visible(one.student)}</td><td data-label="Student">${visible(other.student)}</td>
          <td><a href=${`#/similar/${encodeURIComponent(one.id)}/${encodeURIComponent(other.id)}`}
            aria-label=${`Compare students ${plain(one.student)} and ${plain(other.student)}`}>Side by side</a></td>
        </tr>`)}</tbody>
      </table></div>`}
      ${leftOut.length > 0 && html`<details><summary>${leftOut.length} not compared, or only in part</summary><ul>
        ${leftOut.map(([id, why]) => html`<li><a href=${`#/submission/${id}`}>${id}</a>: ${visible(why)}</li>`)}</ul></details>`}
    </section>`;
  }
}

// Props: one, other (ids).
export class SideBySide extends Component {
  state = { found: null, error: null, block: null };
  texts = createRef();

  async componentDidMount() {
    try {
      this.setState({ found: await ask(`similar/${encodeURIComponent(this.props.one)}/${encodeURIComponent(this.props.other)}`) });
    } catch (error) {
      this.setState({ error: error.message });
    }
  }

  // Shows a match in both texts.
  show(block) {
    this.setState({ block }, () => {
      for (const part of this.texts.current.querySelectorAll(`[data-block="${block}"]`)) {
        const box = part.closest("pre");
        box.scrollTop += part.getBoundingClientRect().top - box.getBoundingClientRect().top - box.clientHeight / 3;
      }
    });
  }

  side({ id, student, name, parts }, block) {
    return html`<div class="solution-side"><h3><a href=${`#/submission/${encodeURIComponent(id)}`}>Student ${visible(student)}</a> <small>${visible(name)}</small></h3>
      <pre class="solution" tabindex="0">${parts.map((part) => part.block === null ? visible(part.text)
        : html`<mark data-block=${part.block} class=${part.block === block ? "chosen" : ""} title=${`match ${part.block}`}
            onClick=${() => this.show(part.block)}>${visible(part.text)}</mark>`)}</pre></div>`;
  }

  render(_, { found, error, block }) {
    const matches = found ? new Set(found.one.parts.map((part) => part.block).filter(Boolean)) : new Set();
    return html`<section class="panel similar">
      <h2>Side by side</h2>
      <p><a href="#/similar">All pairs</a></p>
      ${error && html`<p class="notice bad" role="alert">${visible(error)}</p>`}
      ${found && html`
        <p class="matches">${matches.size === 0 ? "Nothing matches." : "Matches: "}${[...matches].map((number) =>
          html`<button type="button" aria-pressed=${number === block} onClick=${() => this.show(number)}>${number}</button> `)}</p>
        <div class="sides" ref=${this.texts}>${this.side(found.one, block)}${this.side(found.other, block)}</div>`}
    </section>`;
  }
}
