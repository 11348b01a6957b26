// A dead letter: where it came from, why it failed, its headers and its body.
import { bytes, count, shown, shownJson, time } from "../format.js";
import { Component, html } from "../html.js";
import { read } from "../broker/body.js";
import { Table } from "../broker/messages.js";
import { Act } from "./act.js";
import { Edit } from "./edit.js";

const OWN = /^x-rabbitry-(reason|error|traceback|stage|exchange|routing-key|queue|failed-at|node|attempt|cut)$/;

// Props: letter, given {vhost, app}, agreed, isBusy.
export class Letter extends Component {
  state = { isOpen: false, action: null };

  toggle = (event) => event.target === event.currentTarget && this.setState({ isOpen: event.currentTarget.open });
  act = (action) => this.setState({ action });

  render({ letter, given, agreed, isBusy }, { isOpen, action }) {
    const selection = { ...given, mark: letter.mark };
    const button = (name, title) => html`<button type="button" disabled=${isBusy} aria-expanded=${action === name ? "true" : "false"} onClick=${() => this.act(name)}>${title}</button> `;
    return html`<li><details class="letter" onToggle=${this.toggle}>
      <summary><bdi>${shown(letter.id) || "without an id"}</bdi> <span class="note">${time(letter.failed_at)}, ${bytes(letter.size)}</span></summary>
      ${isOpen && html`<div class="inside">
        <p class="tools">${button("replay", "Replay…")}${button("edit", "Edit and replay…")}${button("drop", "Drop…")}</p>
        ${!isBusy && action === "edit" && html`<${Edit} letter=${letter} selection=${selection} agreed=${agreed} onEnd=${() => this.act(null)} />`}
        ${!isBusy && action && action !== "edit" && html`<${Act} key=${action} action=${action} selection=${selection} number=${1} agreed=${agreed} onEnd=${() => this.act(null)} />`}
        <${Origin} ...${letter} />
        <${Body} ...${letter} />
        ${letter.traceback && html`<h4>Traceback</h4><pre class="raw" tabindex="0" role="region" aria-label="Traceback">${shownJson(letter.traceback)}</pre>`}
        <${Table} title="Properties" of=${letter.properties} />
        <${Table} title="Headers" of=${Object.fromEntries(Object.entries(letter.headers).filter(([name]) => !OWN.test(name)))} />
        ${letter.cut && html`<p class="note">Headers that did not fit and were left out: <bdi>${shown(letter.cut)}</bdi></p>`}
      </div>`}
    </details></li>`;
  }
}

function Origin({ error, stage, queue, exchange, routing_key: key, attempts, failed_at: at, node, type, correlation_id: correlation }) {
  const rows = [["Error", error], ["Stage", stage], ["Failed in queue", queue || "none: it never reached one"], ["Published to exchange", exchange || "(default)"],
    ["With key", key || "(none)"], ["Attempts", attempts.toLocaleString("en")], ["Failed at", time(at)], ["On machine", node], ["Type", type], ["Correlation id", correlation]];
  return html`<dl class="origin">${rows.filter(([, value]) => value).map(([name, value]) => html`<div><dt>${name}</dt><dd><bdi>${shown(value)}</bdi></dd></div>`)}</dl>`;
}

function Body({ body, size, shown_bytes: here, is_masked: isMasked, is_hidden: isHidden }) {
  const { kind, text, length, isCut } = read(body, "base64", size, here, isHidden);
  return html`<h4>Body <span class="note">${kind}${isCut && `, the first ${count(length, "byte", "bytes")} of ${size.toLocaleString("en")}`}${isMasked && ", secrets masked"}</span></h4>
    <pre class="raw" tabindex="0" role="region" aria-label="Body">${text}</pre>`;
}
