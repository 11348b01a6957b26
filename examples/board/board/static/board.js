// The page of the board: its notes, the newest first.
import { Component, html, render } from "../../static/html.js";

class Board extends Component {
  state = { notes: [] };

  componentDidMount() {
    this.load();
    setInterval(() => this.load(), 1000);
  }

  async load() {
    const answer = await fetch("api/notes");
    if (answer.ok) this.setState({ notes: await answer.json() });
  }

  render(_, { notes }) {
    return html`<section class="panel"><ul>${notes.map((note) => html`<li>${note}</li>`)}</ul></section>`;
  }
}

const root = document.getElementById("page");
root.replaceChildren();
render(html`<${Board} />`, root);
