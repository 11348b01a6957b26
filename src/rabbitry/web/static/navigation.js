// The links to the pages of the dashboard.
import { html } from "./html.js";
import { views } from "./views.js";

const root = new URL("../", import.meta.url);

// Props: others, to leave out the page that is shown.
export function Views({ others = false }) {
  return views
    .map(({ path, title }) => ({ title, url: new URL(path, root) }))
    .filter(({ url }) => !others || url.pathname !== location.pathname)
    .map(({ url, title }) => html`<a href=${url.pathname} aria-current=${url.pathname === location.pathname ? "page" : null}>${title}</a>`);
}
