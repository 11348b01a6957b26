// A chart of some columns of a host's history, drawn by uPlot while it is on the screen.
import { Component, createRef, html } from "../../static/html.js";
import { loadPlots } from "../../static/plots.js";

const WINDOW = 180; // seconds shown, once there are as many
const SHORTEST_WINDOW = 30;

let uPlot = null;

const resized = new ResizeObserver((entries) => {
  for (const { target, contentRect } of entries) target.chart?.resize(contentRect.width);
});

const FONT = "11px system-ui, sans-serif";
const GAP = 6;

// Pixels that the labels of the axis take, so that none is cut; the same for the usual ones, so that charts line up.
function axisWidth(plot, labels) {
  plot.ctx.font = FONT;
  const widest = Math.max(0, ...(labels ?? []).map((label) => plot.ctx.measureText(label).width));
  return Math.max(64, Math.ceil(widest) + GAP + 4);
}

function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

// Props: host; columns [{index, colour, fill}]; top (what the axis ends at, or null for what the data need);
// format; height; visible; version (a new one redraws); onHover(index or null).
export class Chart extends Component {
  box = createRef();

  render({ label, height }) {
    return html`<div class="chart" ref=${this.box} role="img" aria-label=${label} data-height=${height}></div>`;
  }

  componentDidMount() {
    this.box.current.chart = this;
    resized.observe(this.box.current);
    addEventListener("themechange", this.recolour);
    this.draw();
  }

  componentDidUpdate(before) {
    if (before.height !== this.props.height) this.drop();
    this.draw();
  }

  componentWillUnmount() {
    resized.unobserve(this.box.current);
    removeEventListener("themechange", this.recolour);
    this.drop();
  }

  recolour = () => {
    this.drop();
    this.draw();
  };

  drop() {
    this.plot?.destroy();
    this.plot = null;
  }

  resize(width) {
    if (this.plot && width > 0 && width !== this.plot.width) this.plot.setSize({ width, height: this.props.height });
  }

  // A canvas costs memory: a chart that is off the screen has none.
  draw() {
    const { host, columns, visible } = this.props;
    if (!visible || host.times.length === 0) {
      if (!visible) this.drop();
      return;
    }
    if (uPlot === null) {
      const drawn = (made) => {
        uPlot = made;
        if (this.box.current) this.draw();
      };
      loadPlots().then(drawn, () => {}); // the next sample tries again
      return;
    }
    const data = [host.times, ...columns.map(({ index }) => host.series[index])];
    this.plot ??= new uPlot(this.options(), data, this.box.current);
    const last = host.times.at(-1);
    const span = Math.min(WINDOW, Math.max(SHORTEST_WINDOW, last - host.times[0]));
    this.plot.batch(() => {
      this.plot.setData(data, false);
      this.plot.setScale("x", { min: last - span, max: last });
    });
  }

  options() {
    const { columns, height, top, format, host } = this.props;
    const [muted, line] = [colour("--muted"), colour("--line")];
    return {
      width: Math.max(this.box.current.clientWidth, 10),
      height,
      padding: [6, 0, 4, 0],
      legend: { show: false },
      cursor: {
        sync: { key: `host ${host.id}` }, // uPlot keeps these keys in a plain object
        drag: { x: false, y: false },
        points: { size: 6 },
        y: false,
      },
      hooks: { setCursor: [(plot) => this.props.onHover(plot.cursor.idx ?? null)] },
      scales: {
        x: { time: true, auto: false },
        y: { range: (_, __, most) => [0, top ?? ceiling(most)] },
      },
      axes: [
        { show: false },
        {
          side: 1,
          size: axisWidth,
          gap: GAP,
          stroke: muted,
          font: FONT,
          grid: { stroke: line, width: 1 },
          ticks: { show: false },
          splits: (_, __, ___, most) => [0, most / 2, most],
          values: (_, splits) => splits.map((split) => format(split)),
        },
      ],
      series: [
        {},
        ...columns.map(({ colour: variable, fill }) => ({
          stroke: colour(variable),
          fill: fill ? colour(fill) : undefined,
          width: 1.6,
          points: { show: false },
        })),
      ],
    };
  }
}

// The next of 1, 2, 5, 10, 20, 50 … thousand that is not below `most`, so that the axis seldom jumps.
function ceiling(most) {
  const least = Math.max(most ?? 0, 1000);
  const power = 10 ** Math.floor(Math.log10(least));
  return [1, 2, 5, 10].map((step) => step * power).find((step) => step >= least) ?? least;
}
