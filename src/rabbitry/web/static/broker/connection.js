// The details of a connection.
import { shown } from "../format.js";
import { html } from "../html.js";
import { Changes } from "./changes.js";

const ACTIONS = [{
  verb: "Close", path: "close", done: "Closed.", hasReason: true,
  about: "What its consumers hold goes back into the queues, and its exclusive queues are deleted. Most clients connect again by themselves.",
}];

// Props: of, its name.
export function ConnectionDetails({ of: [name] }) {
  return html`<h2><bdi>${shown(name)}</bdi></h2>
    <h3>Close</h3>
    <${Changes} thing="connection" name=${name} data=${{ name }} actions=${ACTIONS} />`;
}
