// Editing the body of a dead letter, which comes unmasked: what changes is shown beside the original.
import { post } from "../ask.js";
import { shown, shownJson } from "../format.js";
import { Component, html } from "../html.js";
import { isJson, pretty } from "../broker/body.js";
import { Act } from "./act.js";
import { changes } from "./diff.js";

const LONGEST = 1 << 20; // bytes, as the server takes them
const TYPING = 300; // milliseconds after the last key before the body is checked
const DIFFERENT = 400; // lines of a difference that are shown

// Returns the text of a body, JSON on several lines; null where it is no text.
function textOf(body) {
  const raw = Uint8Array.from(atob(body), (letter) => letter.charCodeAt(0));
  try {
    const text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(raw);
    if (/[\0\r]/.test(text)) return null; // a field of a page does not keep them
    return isJson(text) && !text.includes("\n") ? pretty(text).trimStart() : text;
  } catch {
    return null;
  }
}

// Props: letter, selection, agreed, onEnd().
export class Edit extends Component {
  state = { before: null, text: "", why: "Fetching the whole body.", check: null, isForced: false };

  async componentDidMount() {
    const { letter, selection } = this.props;
    if (letter.size > LONGEST) return this.setState({ why: "This body is larger than 1 MiB: it can only be replayed as it is." });
    if (letter.properties.content_encoding) return this.setState({ why: `This body is encoded (${letter.properties.content_encoding}): it can only be replayed as it is.` });
    try {
      const { body } = await post("body", selection);
      const text = body === null ? null : textOf(body);
      this.setState(text === null ? { why: body !== null ? "This body is no text: it can only be replayed as it is." : "It is no longer there." } : { before: text, text, why: null });
    } catch (error) {
      this.setState({ why: error.message });
    }
  }

  componentWillUnmount() {
    clearTimeout(this.typing);
  }

  type = (event) => {
    this.setState({ text: event.currentTarget.value, check: null, isForced: false });
    clearTimeout(this.typing);
    this.typing = setTimeout(this.check, TYPING);
  };

  // Checks the body against the type of the stage's messages. A message that never reached a queue has no stage.
  check = async () => {
    const { letter: { stage, queue }, selection: { vhost, app } } = this.props;
    const { text } = this.state;
    if (!queue) return this.setState({ check: { known: false, problems: [] } });
    try {
      const check = await post("check", { vhost, app, stage, body: text });
      if (text === this.state.text) this.setState({ check });
    } catch (error) {
      if (text === this.state.text) this.setState({ check: { known: false, problems: [], error: error.message } });
    }
  };

  render({ letter, selection, agreed, onEnd }, { before, text, why, check, isForced }) {
    if (why !== null) return html`<p class="warning" role="status">${why}</p>`;
    const isWrong = check?.problems.length > 0;
    const blocked = text === before ? "Nothing is changed yet." : !check ? "Checking." : isWrong && !isForced ? "It is not of the stage’s type." : null;
    return html`<div class="edit">
      <label>Body, published as it stands here<textarea class="raw" rows=${Math.min(20, text.split("\n").length + 1)} spellcheck=${false} value=${text}
        onInput=${this.type}></textarea></label>
      ${text !== before && html`<${Difference} before=${before} after=${text} />`}
      ${text !== before && check && html`<${Told} check=${check} letter=${letter} />`}
      ${isWrong && html`<label class="forced"><input type="checkbox" checked=${isForced} onChange=${(event) => this.setState({ isForced: event.currentTarget.checked })} /> Replay it all the same</label>`}
      <${Act} action="replay" selection=${selection} number=${1} agreed=${agreed} body=${text} blocked=${blocked} onEnd=${onEnd} />
    </div>`;
  }
}

function Told({ check: { known, problems, error }, letter: { stage, queue } }) {
  const name = html`<bdi>${shown(stage)}</bdi>`;
  return html`<div role="status" aria-label="Check of the type">${error ? html`<p>It could not be checked: ${error}</p>`
    : !queue ? html`<p class="note">Not checked: this message never reached a queue, so no stage’s type is known for it.</p>`
      : !known ? html`<p class="note">Not checked: no worker has told this dashboard the type of stage ${name} yet. Workers tell it when they start, and each 10 s.</p>`
        : problems.length === 0 ? html`<p>It is of the type of stage ${name}.</p>`
          : html`<p><b>Stage ${name} takes another type:</b></p><ul class="problems">${problems.map((text) => html`<li><bdi>${shown(text)}</bdi></li>`)}</ul>`}</div>`;
}

function Difference({ before, after }) {
  const lines = changes(before.split("\n"), after.split("\n"));
  return html`<h4>What changes</h4><pre class="raw diff" tabindex="0" role="region" aria-label="What changes">${lines.slice(0, DIFFERENT).map(([kind, line]) => {
    const content = `${{ same: " ", gone: "-", new: "+" }[kind]} ${shownJson(line)}\n`;
    return kind === "gone" ? html`<del>${content}</del>` : kind === "new" ? html`<ins>${content}</ins>` : content;
  })}${lines.length > DIFFERENT && "…"}</pre>`;
}
