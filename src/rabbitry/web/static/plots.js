// uPlot, the library for charts: a quarter of all that a page loads, fetched when there is something to draw.
const place = import.meta.resolve("./vendor/uplot/uPlot.iife.min.js");
let loading = null;

// A classic script: its package holds no minified module. Returns a promise of its class.
export function loadPlots() {
  loading ??= new Promise((resolve, reject) => {
    const script = document.createElement("script");
    script.src = place;
    script.onload = () => resolve(window.uPlot);
    script.onerror = () => {
      loading = null; // the next one tries again
      reject(new Error(`${place} was not loaded`));
    };
    document.head.append(script);
  });
  return loading;
}
