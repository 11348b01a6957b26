// Messages of an exchange as they pass.
import { lacking } from "../access.js";
import { feed } from "../broker/live.js";
import { Message } from "../broker/messages.js";
import { clock, count } from "../format.js";
import { Held } from "../held.js";
import { Component, html, render } from "../html.js";

class Raw extends Component {
  constructor(props) {
    super(props);
    const query = new URLSearchParams(location.search);
    this.state = { exchange: query.get("exchange") ?? "", key: query.get("key") ?? "#", exchanges: [], told: null, error: null, frozen: null };
  }

  componentDidMount() {
    feed.open("exchanges", { sort: ["name"], count: 200 }, ({ rows = [] }) => this.setState({ exchanges: rows.map(([, name]) => name).filter(Boolean) }));
    if (this.state.exchange) this.watch();
  }

  watch() {
    this.subscription?.close();
    this.setState({ told: null, error: null, frozen: null });
    const { exchange, key } = this.state;
    this.subscription = feed.open("raw", { exchange, key }, ({ value, error }) => this.setState(error ? { error, told: null } : { told: { ...value } }));
  }

  go = (event) => {
    event.preventDefault();
    const { exchange, key } = event.currentTarget.elements;
    this.setState({ exchange: exchange.value, key: key.value }, () => {
      history.replaceState(null, "", `?${new URLSearchParams({ exchange: this.state.exchange, key: this.state.key })}`);
      this.watch();
    });
  };

  stop = () => {
    this.subscription?.close();
    this.subscription = null;
    this.setState({ told: null });
  };

  render(_, { exchange, key, exchanges, told, error, frozen }) {
    const reason = lacking("operator");
    if (reason) return html`<p class="nothing">${reason}</p>`;
    const messages = frozen ?? told?.messages ?? [];
    return html`<div class="broker sampled"><div class="messages">
      <form class="tools" aria-label="What to watch" onSubmit=${this.go}>
        <label><span>Exchange</span><input name="exchange" required maxlength="255" list="exchanges" autocomplete="off" spellcheck=${false} defaultValue=${exchange} /></label>
        <datalist id="exchanges">${exchanges.map((name) => html`<option value=${name} />`)}</datalist>
        <label><span>Binding key</span><input name="key" maxlength="255" autocomplete="off" spellcheck=${false} defaultValue=${key} /></label>
        <button>Watch</button>
        ${told && html`<button type="button" onClick=${this.stop}>Stop</button>
          <button type="button" aria-pressed=${frozen ? "true" : "false"} onClick=${() => this.setState({ frozen: frozen ? null : messages })}>${frozen ? "Go on" : "Freeze"}</button>`}
      </form>
      <p class="note">At most ten messages a second are shown, and the newest 50 kept. They come from a queue of this page alone, from which the broker drops
        the oldest; nothing is held up, and the queue goes with the page. Secrets are masked, as --mask says.
        The binding key # is all of a topic exchange; of a direct one, as apps have it, give the key itself.</p>
      ${(error || told?.reason) && html`<p class="failed" role="alert">${error ?? told.reason}</p>`}
      ${told?.state === "live" && html`<p role="status">${told.seen === 0 ? "Watching. Nothing came yet." : `Watching: ${count(told.seen, "message", "messages")} seen.`}</p>`}
      <${Held} as="ol" class="list" isStill entries=${messages} asked=${told === null} keyOf=${({ at }) => at}
        draw=${(message) => html`<${Message} key=${`${message.at}`} ...${message} note=${clock(message.at)} />`} />
    </div></div>`;
  }
}

const page = document.getElementById("page");
page.replaceChildren();
render(html`<${Raw} />`, page);
