// A submitted file as a person can read it: one text, or the files of an archive, one at a time.
import { bytes } from "../../static/format.js";
import { Component, html } from "../../static/html.js";
import { ask, query } from "./api.js";
import { Said, Solution } from "./solution.js";
import { plain, visible } from "./text.js";

const PAUSE = 200; // milliseconds until a chosen file is loaded: the arrow keys pass over others
const ROWS = 8; // of the list

// Comments that are typed are kept by their places: "line", in a notebook "cell:line", in an archive "path\nline" or
// "path\ncell:line". No path has a line feed.
const start = (path) => `${path}\n`;

// Returns typed comments as the server takes them.
export function asSent(mine) {
  const comments = Object.entries(mine).map(([at, text]) => {
    const [place, file] = at.split("\n").reverse();
    const [line, cell] = place.split(":").map(Number).reverse();
    return { line, text: text.trim(), cell: cell ?? null, file: file ?? null };
  });
  return comments.filter(({ text }) => text !== "");
}

// The comments on a file of those on an archive, by their places in the file.
function inFile(mine, path) {
  if (mine === null) return null;
  const inside = Object.entries(mine).filter(([at]) => at.startsWith(start(path)));
  return Object.fromEntries(inside.map(([at, text]) => [at.slice(start(path).length), text]));
}

// Props: those of Submitted.
class Archive extends Component {
  constructor(props) {
    super(props);
    const { files } = props.of;
    const commented = props.earlier.find(({ file }) => files.some(({ path }) => path === file));
    this.state = { path: commented?.file ?? (files.find((one) => one.is_text) ?? files[0])?.path ?? null, text: null, error: null };
  }

  componentDidMount() {
    this.load();
  }

  componentWillUnmount() {
    clearTimeout(this.timer);
  }

  choose = (event) => {
    this.setState({ path: event.currentTarget.value, text: null, error: null });
    clearTimeout(this.timer);
    this.timer = setTimeout(this.load, PAUSE);
  };

  load = async () => {
    const { path } = this.state;
    if (path === null) return;
    this.props.onPath?.(path);
    this.setState({ error: null });
    try {
      const text = await ask(`texts/${encodeURIComponent(this.props.id)}?${query({ path })}`);
      if (path === this.state.path) this.setState({ text }); // else another file was chosen while the server answered
    } catch (error) {
      if (path === this.state.path) this.setState({ error: error.message });
    }
  };

  option({ path, size, is_text }) {
    const { earlier, mine } = this.props;
    const number = earlier.filter(({ file }) => file === path).length + Object.keys(inFile(mine, path) ?? {}).length;
    const said = number === 0 ? "" : ` · ${number === 1 ? "1 comment" : `${number} comments`}`;
    return html`<option value=${path} selected=${path === this.state.path}>${plain(path)} · ${is_text ? bytes(size) : `not text, ${bytes(size)}`}${said}</option>`;
  }

  change = (comments) => {
    const { mine, change } = this.props;
    const { path } = this.state;
    const others = Object.entries(mine).filter(([at]) => !at.startsWith(start(path)));
    change(Object.fromEntries([...others, ...Object.entries(comments).map(([at, text]) => [start(path) + at, text])]));
  };

  render({ id, of, earlier, mine }, { path, text, error }) {
    const elsewhere = earlier.filter(({ file }) => !of.files.some((one) => one.path === file));
    return html`<div class="archive">
      <div class="fields"><label class="wide"><span>Files in the archive</span>
        <select size=${Math.min(Math.max(of.files.length, 2), ROWS)} onChange=${this.choose}>${of.files.map((one) => this.option(one))}</select></label></div>
      ${of.unlisted > 0 && html`<p class="nothing">${of.unlisted} further files are not listed: download the archive.</p>`}
      ${path !== null && html`<h4>${visible(path)}</h4>`}
      ${error && html`<p class="notice bad" role="alert">${visible(error)} <button type="button" onClick=${this.load}>Try again</button></p>`}
      ${text === null ? !error && html`<p class="nothing" role="status">The file is being read.</p>`
        : html`<${Solution} key=${path} id=${id} path=${path} of=${text} mine=${inFile(mine, path)} change=${this.change}
          earlier=${earlier.filter(({ file }) => file === path)} />`}
      <${Said} comments=${elsewhere} />
    </div>`;
  }
}

// Props: id (of the submission), of (what the server tells of the file), earlier (comments), mine (by their places; null to read
// only), change(comments), onPath(path) (called with the chosen file of an archive).
export function Submitted(props) {
  const { of, earlier } = props;
  if (of.refused !== null) return html`<p class="notice warn">The archive is not unpacked: ${visible(of.refused)}.</p><${Said} comments=${earlier} />`;
  return of.files !== null ? html`<${Archive} ...${props} />` : html`<${Solution} ...${props} />`;
}
