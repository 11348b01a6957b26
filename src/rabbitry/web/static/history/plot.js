// A chart of a history, drawn by uPlot.
import { Component, createRef, html } from "../html.js";
import { loadPlots } from "../plots.js";

const HEIGHT = 150;
const FONT = "11px system-ui, sans-serif";
const CLOCK = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", hourCycle: "h23" });
const DAY = new Intl.DateTimeFormat(undefined, { weekday: "short", day: "numeric" });
const LABELS = { hour: (at) => CLOCK.format(at), week: (at) => (at.getHours() ? CLOCK.format(at) : DAY.format(at)) };

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

// Props: chart (of /api/history), lines [{name, colour}], top (of the axis, or null), format, span, label.
export class Plot extends Component {
  box = createRef();
  resized = new ResizeObserver(([{ contentRect }]) => {
    if (this.plot && contentRect.width > 0) this.plot.setSize({ width: contentRect.width, height: HEIGHT });
  });

  render({ label }) {
    return html`<div class="plotted" ref=${this.box} role="img" aria-label=${label}></div>`;
  }

  componentDidMount() {
    this.resized.observe(this.box.current);
    addEventListener("themechange", this.again);
    this.draw();
  }

  componentDidUpdate() {
    this.draw();
  }

  componentWillUnmount() {
    this.resized.disconnect();
    removeEventListener("themechange", this.again);
    this.plot?.destroy();
    this.isGone = true;
  }

  again = () => {
    this.plot?.destroy();
    this.plot = null;
    this.draw();
  };

  async draw() {
    let made;
    try {
      made = await loadPlots();
    } catch {
      return; // the next numbers try again; the table shows them meanwhile
    }
    if (this.isGone) return;
    const { chart, lines } = this.props;
    const data = [chart.at, ...lines.map(({ name }) => chart.series[name])];
    this.plot ??= new made(this.options(), data, this.box.current);
    this.plot.batch(() => {
      this.plot.setData(data, false);
      this.plot.setScale("x", { min: chart.since, max: chart.until });
    });
  }

  options() {
    const { lines, top, format, span } = this.props;
    const axis = { stroke: colour("--muted"), font: FONT, grid: { stroke: colour("--line"), width: 1 }, ticks: { show: false } };
    return {
      width: Math.max(this.box.current.clientWidth, 10),
      height: HEIGHT,
      padding: [8, 8, 0, 0],
      legend: { show: false },
      cursor: { drag: { x: false, y: false }, y: false, points: { size: 6 } },
      scales: { x: { time: true, auto: false }, y: { range: (_, __, most) => [0, top ?? Math.max(most * 1.05, 1)] } },
      axes: [
        { ...axis, size: 24, values: (_, splits) => splits.map((at) => LABELS[span](new Date(at * 1000))) },
        { ...axis, side: 1, size: 78, gap: 6, values: (_, splits) => splits.map((value) => format(value)) },
      ],
      series: [{}, ...lines.map((line) => ({ stroke: colour(line.colour), width: 1.4, points: { show: false } }))],
    };
  }
}
