// Purging and deleting a queue, each confirmed by its name, typed.
import { lacking } from "../access.js";
import { post } from "../ask.js";
import { shown } from "../format.js";
import { Component, html } from "../html.js";

const ACTIONS = {
  purge: { verb: "Purge", about: "All messages that are ready are dropped for good. Those that consumers hold stay.", done: "Purged." },
  delete: { verb: "Delete", about: "The queue is deleted with its messages and bindings. Its consumers are cancelled.", done: "Deleted." },
};

// Props: vhost, queue.
export class Changes extends Component {
  state = { action: null, typed: "", isAsked: false, error: null, told: "" };

  choose = (action) => this.setState({ action, typed: "", error: null, told: "" });

  send = async (event) => {
    event.preventDefault();
    const { vhost, queue } = this.props;
    const { action } = this.state;
    if (!this.isConfirmed() || this.state.isAsked) return;
    this.setState({ isAsked: true, error: null });
    try {
      await post(action, { vhost, name: queue, confirm: queue });
      this.setState({ action: null, told: ACTIONS[action].done });
    } catch (error) {
      this.setState({ error: error.message });
    }
    this.setState({ isAsked: false });
  };

  // What can't be seen in a name can be typed as it is shown.
  isConfirmed = () => this.state.typed === this.props.queue || this.state.typed === shown(this.props.queue);

  render({ queue }, { action, typed, isAsked, error, told }) {
    const chosen = ACTIONS[action];
    const reason = lacking("admin");
    if (reason) return html`<p>${Object.values(ACTIONS).map(({ verb }) => html`<button type="button" disabled>${verb}…</button> `)}</p>
      <p class="zero">${reason}</p>`;
    return html`<p>${Object.entries(ACTIONS).map(([name, { verb }]) => html`<button type="button" aria-expanded=${name === action}
        onClick=${() => this.choose(name)}>${verb}…</button> `)} <a href="../audit/">Audit log</a></p>
      <p role="status">${told}</p>
      ${chosen && html`<form class="warning" onSubmit=${this.send}>
        <p>${chosen.about}</p>
        <label>Type the queue's name, <bdi><strong>${shown(queue)}</strong></bdi>
          <input value=${typed} autocomplete="off" spellcheck=${false} onInput=${(event) => this.setState({ typed: event.currentTarget.value })} /></label>
        <p><button type="submit" disabled=${isAsked || !this.isConfirmed()}>${chosen.verb} the queue</button>
          <button type="button" onClick=${() => this.choose(null)}>Leave it</button></p>
      </form>`}
      ${error && html`<p class="failed" role="alert">${error}</p>`}`;
  }
}
