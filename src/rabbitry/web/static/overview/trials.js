// Commands for newcomers: each is shown until it was tried, or closed for good.
import { Component, html } from "../html.js";
import { trials } from "../views.js";

const KEY = "rabbitry.tried";

function remembered() {
  try {
    const found = JSON.parse(localStorage.getItem(KEY));
    return new Set(Array.isArray(found) ? found : []);
  } catch {
    return new Set(); // storage is switched off, or holds something else
  }
}

function isTried({ key, consumes }, nodes) {
  const queue = nodes.get(key);
  if (!queue) return false;
  return consumes ? queue.consumers > 0 || queue.out > 0 : queue.at !== null || queue.ready + queue.unacked > 0;
}

// Props: nodes, of the topology.
export class Trials extends Component {
  state = { done: remembered() };

  end(titles) {
    const done = new Set([...this.state.done, ...titles]);
    this.setState({ done });
    try {
      localStorage.setItem(KEY, JSON.stringify([...done]));
    } catch {
      // It holds for this page.
    }
  }

  // A command stays tried when its queue is empty again.
  componentDidUpdate() {
    const fresh = trials.filter((one) => !this.state.done.has(one.title) && isTried(one, this.props.nodes));
    if (fresh.length > 0) this.end(fresh.map(({ title }) => title));
  }

  componentDidMount() {
    this.componentDidUpdate();
  }

  render({ nodes }, { done }) {
    const left = trials.filter((one) => !done.has(one.title) && !isTried(one, nodes));
    if (left.length === 0) return null;
    return html`<section class="panel trials" aria-labelledby="trials">
      <div class="bar-top"><h2 id="trials">To try</h2>
        <button type="button" onClick=${() => this.end(trials.map(({ title }) => title))}>Dismiss</button></div>
      <ol>${left.map(({ title, command }) => html`<li key=${title}>${title}: <code>${command}</code></li>`)}</ol></section>`;
  }
}
