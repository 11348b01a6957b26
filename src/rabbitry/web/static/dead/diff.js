// The difference of two texts, line by line.

const AROUND = 3; // equal lines that are kept beside those that differ
const LARGEST = 1_000_000; // cells of the table; larger differences are shown as a whole

// Returns [kind, line] with kind same, gone or new. Equal lines far from all others are left out.
export function changes(before, after) {
  let start = 0;
  while (start < before.length && start < after.length && before[start] === after[start]) start += 1;
  let end = 0;
  while (end < before.length - start && end < after.length - start && before.at(-1 - end) === after.at(-1 - end)) end += 1;
  const [old, fresh] = [before.slice(start, before.length - end), after.slice(start, after.length - end)];
  const same = (lines) => lines.map((line) => ["same", line]);
  return [
    ...same(before.slice(Math.max(0, start - AROUND), start)),
    ...middle(old, fresh),
    ...same(end === 0 ? [] : before.slice(before.length - end, before.length - end + AROUND)),
  ];
}

function middle(old, fresh) {
  if (old.length * fresh.length > LARGEST) return [...old.map((line) => ["gone", line]), ...fresh.map((line) => ["new", line])];
  // common[i][j]: the most lines that old from i on and fresh from j on have in common, in order.
  const common = Array.from({ length: old.length + 1 }, () => new Uint32Array(fresh.length + 1));
  for (let i = old.length - 1; i >= 0; i -= 1) {
    for (let j = fresh.length - 1; j >= 0; j -= 1) common[i][j] = old[i] === fresh[j] ? common[i + 1][j + 1] + 1 : Math.max(common[i + 1][j], common[i][j + 1]);
  }
  const lines = [];
  let [i, j] = [0, 0];
  while (i < old.length || j < fresh.length) {
    if (i < old.length && j < fresh.length && old[i] === fresh[j]) {
      lines.push(["same", old[i]]);
      i += 1;
      j += 1;
    } else if (i < old.length && (j === fresh.length || common[i + 1][j] >= common[i][j + 1])) lines.push(["gone", old[i++]]);
    else lines.push(["new", fresh[j++]]);
  }
  return lines;
}
