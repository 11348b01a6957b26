// The last messages that passed a queue's stage, as its workers report them, and where to see more.
import { shown } from "../format.js";
import { Component, html } from "../html.js";
import { within } from "../leaving.js";

const EVERY = 3000; // milliseconds; reports come each 2 s
const MOST = 5;
const root = new URL("../../", import.meta.url);

const at = (place, query) => `${root.pathname}${place}?${new URLSearchParams(query)}`;

// Props: node, a queue or an exchange of the topology.
export function More({ node: { kind, vhost, name } }) {
  const open = JSON.stringify([vhost, name]);
  if (kind === "queue") return html`<${Last} key=${open} queue=${name} /><p class="more"><a href=${at("queues/", { open })}>The queue in full, and its messages</a></p>`;
  if (kind !== "exchange") return null;
  return html`<p class="more"><a href=${at("exchanges/", { open })}>The exchange in full</a>
    ${name !== "" && html`, <a href=${at("raw/", { exchange: name, key: "#" })}>watch its messages</a>`}</p>`;
}

class Last extends Component {
  state = { passages: [] };

  componentDidMount() {
    this.load();
    this.timer = setInterval(() => document.hidden || this.load(), EVERY);
  }

  componentWillUnmount() {
    clearInterval(this.timer);
    this.isGone = true;
  }

  // Where the server does not answer, the header says so, and the last answer stays.
  async load() {
    try {
      const response = await fetch(at("way/api/queue", { name: this.props.queue }), { signal: within(EVERY) });
      if (response.ok && !this.isGone) this.setState({ passages: (await response.json()).slice(0, MOST) });
    } catch {
      // as above
    }
  }

  render(_, { passages }) {
    if (passages.length === 0) return null;
    return html`<h4>Last messages</h4><ul class="list last">${passages.map(({ chain, message, began, outcome, end, attempt }) => html`<li>
      <a href=${at("way/", { id: message || chain })}><code>${shown(message || chain) || "no id"}</code></a>
      <span class="note"><time datetime=${new Date(began * 1000).toISOString()}>${new Date(began * 1000).toLocaleTimeString()}</time>, ${shown(end === "dead" ? "dead letter" : outcome)}${
        attempt > 1 && `, attempt ${attempt.toLocaleString("en")}`}</span></li>`)}</ul>`;
  }
}
