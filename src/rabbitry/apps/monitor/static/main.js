import { html, render } from "../../static/html.js";
import { live } from "./live.js";
import { Page } from "./page.js";

const root = document.getElementById("page");
root.replaceChildren();
render(html`<${Page} store=${live()} />`, root);
