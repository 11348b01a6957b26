import { Connection } from "../../static/connection.js";
import { html, render } from "../../static/html.js";
import { Page } from "./page.js";
import { Store } from "./store.js";

const store = new Store();
const url = new URL("ws", document.baseURI);
url.protocol = url.protocol.replace("http", "ws");
const connection = new Connection(
  url,
  (update) => store.receive(update),
  (link) => store.setLink(link),
);
const root = document.getElementById("page");
root.replaceChildren();
render(html`<${Page} store=${store} connection=${connection} />`, root);
