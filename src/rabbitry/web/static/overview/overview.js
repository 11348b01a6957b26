// The first page: what flows, what needs attention, and the panels of the apps.
import { Component, html, render } from "../html.js";
import { panels } from "../views.js";

const root = new URL("../../", import.meta.url);

class Overview extends Component {
  state = { panels: [] };

  componentDidMount() {
    // A panel that fails is reported on the console and costs the others nothing.
    panels.forEach(async (path, index) => {
      const { default: panel } = await import(new URL(path, root).href);
      this.setState(({ panels: known }) => {
        const next = [...known];
        next[index] = panel;
        return { panels: next };
      });
    });
  }

  render(_, { panels: loaded }) {
    return html`${loaded.map((Panel) => Panel && html`<${Panel} />`)}`;
  }
}

const page = document.getElementById("page");
page.replaceChildren();
render(html`<${Overview} />`, page);
