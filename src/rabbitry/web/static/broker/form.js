// A form that changes something in the broker. What it refuses is told beside it, and what was typed stays.
import { post } from "../ask.js";
import { Component, createRef, html } from "../html.js";

// Props: label (of the button that sends it), path, body(fields) which returns the request or throws an Error,
// onDone(request), onLeave, isReady, kind (a class), children.
export class Form extends Component {
  state = { isAsked: false, error: null };
  form = createRef();

  componentDidMount() {
    this.form.current.querySelector("input, select")?.focus();
  }

  send = async (event) => {
    event.preventDefault();
    const { path, body, onDone, isReady = true } = this.props;
    if (!isReady || this.state.isAsked) return;
    this.setState({ isAsked: true, error: null });
    try {
      const asked = body(this.form.current.elements);
      await post(path, asked);
      this.setState({ isAsked: false });
      onDone(asked);
    } catch (error) {
      this.setState({ isAsked: false, error: error.message });
    }
  };

  render({ label, kind = "", isReady = true, onLeave, children }, { isAsked, error }) {
    return html`<form class=${`change ${kind}`} ref=${this.form} aria-label=${label} onSubmit=${this.send}>
      ${children}
      ${error && html`<p class="failed" role="alert">${error}</p>`}
      <p><button type="submit" disabled=${isAsked || !isReady}>${label}</button>
        ${onLeave && html` <button type="button" onClick=${onLeave}>Leave it</button>`}</p>
    </form>`;
  }
}
