// The gaps and the summary of a history's numbers.

const LONGEST = 3; // usual steps between two numbers; after a longer one the line ends

// Puts a time without numbers into each gap, so that no line is drawn over it. Numbers every 5 s have no gaps.
export function gapped(chart) {
  const steps = chart.at.slice(1).map((at, index) => at - chart.at[index]).sort((a, b) => a - b);
  const usual = Math.max(chart.step, steps[Math.floor(steps.length / 2)] ?? 0);
  const at = [];
  const names = Object.keys(chart.series);
  const series = Object.fromEntries(names.map((name) => [name, []]));
  chart.at.forEach((time, index) => {
    if (index > 0 && time - chart.at[index - 1] > LONGEST * usual) {
      at.push(time - usual);
      names.forEach((name) => series[name].push(null));
    }
    at.push(time);
    names.forEach((name) => series[name].push(chart.series[name][index]));
  });
  return { ...chart, at, series };
}

export function summary(numbers) {
  const known = numbers.filter((number) => number !== null);
  const sum = known.reduce((total, number) => total + number, 0);
  return { last: known.at(-1) ?? NaN, mean: known.length ? sum / known.length : NaN, highest: known.reduce((a, b) => Math.max(a, b), -Infinity) };
}
