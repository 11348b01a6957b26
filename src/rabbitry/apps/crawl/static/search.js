// Search in the index: titles, and the matching words in context.
import { query } from "../../static/ask.js";
import { shown } from "../../static/format.js";
import { Component, html } from "../../static/html.js";
import { Pager } from "../../static/pager.js";
import { Asked } from "./asked.js";
import { moment, whyOf } from "./text.js";

// A snippet with its marks, whose positions count characters.
function marked(text, marks) {
  const letters = [...text];
  const parts = [];
  let at = 0;
  for (const [begin, end] of marks) {
    if (begin < at || end > letters.length || end <= begin) continue;
    parts.push(shown(letters.slice(at, begin).join("")), html`<mark>${shown(letters.slice(begin, end).join(""))}</mark>`);
    at = end;
  }
  return [...parts, shown(letters.slice(at).join(""))];
}

// Addresses come from other people: only http and https ones become links.
const isWeb = (url) => /^https?:\/\//i.test(url);

// Props: words (searched for).
export class Search extends Component {
  state = { typed: this.props.words, page: 0 };

  componentDidUpdate(before) {
    if (before.words !== this.props.words) this.setState({ typed: this.props.words, page: 0 });
  }

  onSubmit = (event) => {
    event.preventDefault();
    const words = this.state.typed.trim();
    if (words) location.hash = `#/search/${encodeURIComponent(words)}`;
  };

  draw = ({ hits = [], total = 0, is_more: isMore, note }, { each }) => html`
    ${note && html`<p class="notice warn" role="status">${shown(note)}</p>`}
    <p role="status">${total === 0 ? "Nothing found." : `${isMore ? "At least " : ""}${total.toLocaleString("en")} found.`}</p>
    <ol class="hits" start=${this.state.page * each + 1}>${hits.map(({ url, title, snippet = "", marks = [], fetched_at: fetchedAt, language }) => html`<li key=${url}>
      <h3><bdi>${isWeb(url) ? html`<a href=${url} rel="noopener noreferrer" target="_blank">${shown(title || url)}</a>` : shown(title || url)}</bdi></h3>
      <p class="where"><bdi>${shown(url)}</bdi></p><p><bdi>${marked(snippet, marks)}</bdi></p>
      <p class="note">${moment(fetchedAt)}${language && ` · ${shown(language)}`} · <a href=${whyOf(url)}>Why?</a></p></li>`)}</ol>
    <${Pager} page=${this.state.page} each=${each} total=${total} onPage=${(page) => this.setState({ page })} />`;

  render({ words }, { typed, page }) {
    return html`<section class="panel" id="search"><h2>Search</h2>
      <form class="one-line" role="search" onSubmit=${this.onSubmit}>
        <input type="search" aria-label="Words" value=${typed} maxlength="1000" onInput=${(event) => this.setState({ typed: event.currentTarget.value })} />
        <button type="submit" class="primary">Search</button></form>
      ${words && html`<${Asked} path=${`search?${query({ words, page })}`} every=${0} draw=${this.draw} />`}
    </section>`;
  }
}
