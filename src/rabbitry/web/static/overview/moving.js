// The movement on edges: dashes on one canvas over the part of the picture that is in sight, drawn eight times a second.
// Dashes of an SVG that are animated cost a style, a paint and a raster of all of it each.
import { Component, createRef, html } from "../html.js";
import { part } from "./layout.js";

const EVERY = 125; // milliseconds
const DASH = [5, 23];
const LENGTH = 28; // pixels of a dash and its gap
const still = matchMedia("(prefers-reduced-motion: reduce)");

// Pixels that the dashes of an edge go on in a tick.
const pace = (rate) => (rate === null || rate < 5 ? 1.6 : rate < 200 ? 2.8 : 5);

// Props: edges [{curve, wide, rate, isFaint}], from and until (pixels of the picture that are in sight), width, isFrozen.
export class Moving extends Component {
  box = createRef();
  ticks = 0;

  componentDidMount() {
    this.ticking = setInterval(() => this.tick(), EVERY);
    addEventListener("themechange", this.draw);
    this.fit();
  }

  componentDidUpdate() {
    this.fit();
  }

  componentWillUnmount() {
    clearInterval(this.ticking);
    removeEventListener("themechange", this.draw);
  }

  tick() {
    const { edges, isFrozen } = this.props;
    if (document.hidden || isFrozen || still.matches || edges.length === 0) return;
    this.ticks += 1;
    this.draw();
  }

  // A canvas that gets a size is emptied, even if it had that size.
  fit() {
    const { edges, from, until, width } = this.props;
    const canvas = this.box.current;
    const [wide, high] = [width * devicePixelRatio, (until - from) * devicePixelRatio].map(Math.round);
    if (canvas.width !== wide || canvas.height !== high) Object.assign(canvas, { width: wide, height: high });
    this.parts = edges.map(({ curve, ...edge }) => ({ ...edge, path: new Path2D(part(curve, from, until)) }));
    this.draw();
  }

  draw = () => {
    const { from } = this.props;
    const canvas = this.box.current;
    const pen = canvas.getContext("2d");
    pen.setTransform(1, 0, 0, 1, 0, 0);
    pen.clearRect(0, 0, canvas.width, canvas.height);
    pen.setTransform(devicePixelRatio, 0, 0, devicePixelRatio, 0, -from * devicePixelRatio);
    pen.strokeStyle = getComputedStyle(canvas).color;
    pen.setLineDash(DASH);
    for (const { path, wide, rate, isFaint } of this.parts) {
      pen.globalAlpha = isFaint ? 0.25 : 1;
      pen.lineWidth = Math.max(1.5, wide * 0.6);
      pen.lineDashOffset = LENGTH - ((this.ticks * pace(rate)) % LENGTH);
      pen.stroke(path);
    }
  };

  render({ from, until, width }) {
    return html`<canvas class="moving" aria-hidden="true" ref=${this.box} style=${{ top: `${from}px`, width: `${width}px`, height: `${until - from}px` }} />`;
  }
}
