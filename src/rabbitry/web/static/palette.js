// The search over everything: a dialog, opened by / or Ctrl-K. Modules of pages and apps add what can be found.
import { lacking } from "./access.js";
import { shown } from "./format.js";
import { Component, createRef, html, render } from "./html.js";
import { within } from "./leaving.js";
import { views } from "./views.js";

const MOST = 40;
const root = new URL("../", import.meta.url);
const providers = new Set();
let dialog = null;

// `provider(words)` returns a list of {kind, title, url or run}, or a promise of one.
export function addProvider(provider) {
  providers.add(provider);
  return () => providers.delete(provider);
}

const THEMES = [["System theme", "system"], ["Light theme", "light"], ["Dark theme", "dark"]];
addProvider(() => views.map(({ title, path }) => ({ kind: "view", title, url: new URL(path, root).href })));
addProvider(() => THEMES.map(([title, theme]) => ({ kind: "theme", title, run: () => window.rabbitryTheme.choose(theme) })));

// The server finds messages by their ids, and machines, stages and queues by name.
const urlOf = ({ id, key }) => new URL(id === undefined ? `#${encodeURIComponent(key)}` : `way/?id=${encodeURIComponent(id)}`, root).href;
addProvider(async (words) => {
  if (words.length < 2 || lacking("viewer")) return [];
  const place = new URL(`way/api/search?words=${encodeURIComponent(words.slice(0, 255))}`, root);
  const answer = await fetch(place, { signal: within(5000) });
  return answer.ok ? (await answer.json()).map((one) => ({ kind: one.kind, title: one.title, url: urlOf(one) })) : [];
});

// How well a title matches: the lower the better, null for not at all.
function rank(title, words) {
  const at = title.toLowerCase().indexOf(words);
  return at < 0 ? null : at === 0 ? 0 : 1;
}

class Palette extends Component {
  state = { words: "", found: [], at: 0 };
  input = createRef();
  asked = 0;

  componentDidMount() {
    this.look("");
  }

  look(text) {
    this.setState({ words: text });
    this.looking = this.find(text.trim().toLowerCase());
  }

  async find(words) {
    this.asked += 1;
    const asked = this.asked;
    const lists = await Promise.allSettled([...providers].map((provider) => provider(words)));
    if (asked !== this.asked) return;
    const known = new Map(); // the page and the server may know the same thing
    for (const entry of lists.flatMap(({ status, value }) => (status === "fulfilled" ? value : []))) {
      const name = JSON.stringify([entry.kind, entry.title]);
      if (!known.has(name)) known.set(name, entry);
    }
    const all = [...known.values()];
    const ranked = all.map((entry) => ({ entry, rank: rank(entry.title, words) })).filter((each) => each.rank !== null);
    ranked.sort((a, b) => a.rank - b.rank);
    await new Promise((drawn) => this.setState({ found: ranked.slice(0, MOST).map(({ entry }) => entry), at: 0 }, drawn));
  }

  // Enter may come before the server's answer to the last letter.
  async enter() {
    await this.looking;
    if (dialog.open) this.choose(this.state.found[this.state.at]);
  }

  choose(entry) {
    if (!entry) return;
    dialog.close();
    if (entry.run) entry.run();
    else location.href = entry.url;
  }

  key = (event) => {
    const { found, at } = this.state;
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (step && found.length) {
      event.preventDefault();
      this.setState({ at: (at + step + found.length) % found.length }, () => {
        document.getElementById(`found-${this.state.at}`)?.scrollIntoView({ block: "nearest" });
      });
    } else if (event.key === "Enter") {
      event.preventDefault();
      this.enter();
    }
  };

  render(_, { words, found, at }) {
    return html`
      <input type="search" ref=${this.input} value=${words} autofocus role="combobox" aria-label="Search" aria-expanded="true"
        aria-controls="found" aria-autocomplete="list" aria-activedescendant=${found.length ? `found-${at}` : null}
        placeholder="View, machine, stage, queue, id of a message" autocomplete="off" spellcheck=${false}
        onInput=${(event) => this.look(event.currentTarget.value)} onKeyDown=${this.key} />
      <ul id="found" role="listbox" aria-label="Found">
        ${found.map((entry, index) => html`<li id=${`found-${index}`} role="option" aria-selected=${index === at ? "true" : "false"}
          onClick=${() => this.choose(entry)}><span><bdi>${shown(entry.title)}</bdi></span> <span class="kind">${entry.kind}</span></li>`)}
      </ul>
      ${words && found.length === 0 ? html`<p class="nothing" role="status">Nothing is called “${shown(words)}”.</p>`
        : html`<p class="keys" aria-hidden="true"><kbd>↑</kbd> <kbd>↓</kbd> choose <kbd>Enter</kbd> open <kbd>Esc</kbd> close</p>`}`;
  }
}

export function openPalette() {
  if (dialog?.open) return;
  document.getElementById("places").hidePopover?.();
  if (!dialog) {
    dialog = document.createElement("dialog");
    dialog.className = "palette";
    dialog.setAttribute("aria-label", "Search");
    dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
    // The event comes after the dialog was closed, perhaps when it is open again.
    dialog.addEventListener("close", () => dialog.open || render(null, dialog));
    document.body.append(dialog);
  }
  render(null, dialog); // what was typed before
  render(html`<${Palette} />`, dialog);
  dialog.showModal();
  dialog.querySelector("input").focus();
}
