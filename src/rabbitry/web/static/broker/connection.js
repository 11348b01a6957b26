// The details of a connection: who it is, what flows, and its channels.
import { shown } from "../format.js";
import { html } from "../html.js";
import { number, time, traffic } from "./cells.js";
import { Changes } from "./changes.js";
import { Details, Figure, Link, Members, inVhost, leftOut } from "./details.js";

const ACTIONS = [{
  verb: "Close", path: "close", done: "Closed.", hasReason: true,
  about: "What its consumers hold goes back into the queues, and its exclusive queues are deleted. Most clients connect again by themselves.",
}];

// Props: of, its name.
export function ConnectionDetails({ of: [name] }) {
  const draw = ({ connection: row, client, heartbeat, channels, left_out: rest }) => html`
    <p class="where">${inVhost(row.vhost)}, user <bdi>${shown(row.user)}</bdi></p>
    <dl class="figures">
      <${Figure} term="State" value=${shown(row.state)} /><${Figure} term="From client" value=${traffic(row.received)} />
      <${Figure} term="To client" value=${traffic(row.sent)} />
    </dl>
    <h3>Peer</h3>
    <${Members} of=${{ Address: row.address, Protocol: row.protocol, Heartbeat: heartbeat ? `${heartbeat} s` : "none", Since: time(row.since) }} />
    <h3>What the client says of itself</h3>
    <${Members} of=${client} />
    <h3>Channels</h3>
    ${channels.length ? html`<ul class="list">${channels.map((each) => html`<li><${Link} page="channels" of=${[each.name]} />
      <span class="zero"> ${number(each.unacked)} unacked, ${number(each.consumers)} consumers</span></li>`)}</ul>` : html`<p class="zero">None is open.</p>`}
    ${leftOut(rest, "channels")}
    <h3>Close</h3>
    <${Changes} thing="connection" name=${name} data=${{ name }} actions=${ACTIONS} />`;
  return html`<${Details} topic="connection" params=${{ name }} title=${name} draw=${draw} gone="This connection is gone. It was closed, or broke." />`;
}
