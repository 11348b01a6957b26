// The history of a thing's numbers in a dialog: an hour by the second, a week by the minute. Loaded when one is opened.
import { duration, shown } from "../format.js";
import { Component, html, render } from "../html.js";
import { within } from "../leaving.js";
import { Plot } from "./plot.js";
import { gapped, summary } from "./points.js";

const SPANS = [["hour", "Last hour"], ["week", "Last week"]];
const AGAIN = { hour: 10_000, week: 60_000 };
const api = new URL("../../api/history", import.meta.url).href;

class History extends Component {
  state = { span: "hour", chart: null, problem: null };

  componentDidMount() {
    this.ask();
  }

  componentWillUnmount() {
    clearTimeout(this.timer);
    this.isGone = true;
  }

  choose(span) {
    if (span !== this.state.span) this.setState({ span, chart: null }, () => this.ask());
  }

  async ask() {
    clearTimeout(this.timer);
    const { span } = this.state;
    const { app, subject } = this.props.thing;
    let found;
    try {
      const response = await fetch(`${api}?${new URLSearchParams({ app, subject, span })}`, { signal: within(30_000) });
      const data = await response.json();
      found = response.ok ? { chart: gapped(data), problem: null } : { problem: data.error ?? `the server answered ${response.status}` };
    } catch {
      found = { problem: "the server does not answer" };
    }
    if (this.isGone || span !== this.state.span) return; // another span was chosen meanwhile
    this.setState(found);
    this.timer = setTimeout(() => this.ask(), AGAIN[span]);
  }

  render({ thing, close }, { span, chart, problem }) {
    const has = chart !== null && chart.at.length > 0;
    return html`
      <header>
        <h2 id="history-title">${shown(thing.title)}</h2>
        <div class="spans" role="group" aria-label="Time">
          ${SPANS.map(([name, title]) => html`<button type="button" aria-pressed=${name === span ? "true" : "false"}
            onClick=${() => this.choose(name)}>${title}</button>`)}
        </div>
        <button type="button" class="close" onClick=${close}>Close</button>
      </header>
      <p class="said" role="status">${problem !== null ? `The history is not shown: ${problem}.` : chart === null ? "Loading." : has ? recorded(chart) : "Nothing was recorded in this time."}</p>
      ${has && thing.charts.map((each) => html`<${Group} key=${`${each.title} ${span}`} group=${each} chart=${chart} span=${span} />`)}`;
  }
}

function recorded(chart) {
  return `${duration(chart.until - chart.at[0])} recorded, ${chart.step === 1 ? "by the second" : "by the minute"}.`;
}

// A chart, and a table of its numbers for screen readers and exact values.
function Group({ group, chart, span }) {
  const lines = group.lines.filter(({ name }) => chart.series[name]);
  if (lines.length === 0) return null;
  return html`<section aria-label=${group.title}>
    <h3>${group.title}</h3>
    <${Plot} label=${`${group.title}, ${span === "hour" ? "last hour" : "last week"}; the table below has its figures`}
      chart=${chart} lines=${lines} top=${group.top ?? null} format=${group.format} span=${span} />
    <table><thead><tr><th scope="col">${group.title}</th><th scope="col">Last</th><th scope="col">Mean</th><th scope="col">Highest</th></tr></thead>
      <tbody>${lines.map(({ name, title, key }) => {
        const { last, mean, highest } = summary(chart.series[name]);
        return html`<tr><th scope="row"><span class=${`key ${key}`}>${title}</span></th>
          ${[last, mean, highest].map((value) => html`<td>${group.format(value)}</td>`)}</tr>`;
      })}</tbody></table>
  </section>`;
}

// thing: title; app and subject, as /api/history has them; charts [{title, format, top, lines [{name, title, colour, key}]}]:
// colour is a variable of the style sheet, key the class of its sign.
export function openHistory(thing) {
  if (!document.getElementById("history-style")) {
    const style = document.createElement("link");
    Object.assign(style, { id: "history-style", rel: "stylesheet", href: import.meta.resolve("./history.css") });
    document.head.append(style);
  }
  const dialog = document.createElement("dialog");
  dialog.className = "history";
  dialog.setAttribute("aria-labelledby", "history-title");
  dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
  dialog.addEventListener("close", () => {
    render(null, dialog);
    dialog.remove();
  });
  document.body.append(dialog);
  render(html`<${History} thing=${thing} close=${() => dialog.close()} />`, dialog);
  dialog.showModal();
}
