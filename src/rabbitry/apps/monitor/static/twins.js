// What tells machines of one name apart: the routing keys that somebody gave them, else their ids.

// From the id of each host to a text, empty where its name is enough.
export function labels(hosts) {
  const told = new Map();
  for (const [, twins] of groups(hosts, (host) => host.name)) {
    if (twins.length === 1) {
      told.set(twins[0].id, "");
      continue;
    }
    const byKey = groups(twins, (host) => host.key);
    for (const [key, same] of byKey) {
      const keyPart = byKey.size > 1 ? [key || "no routing key"] : [];
      const machines = groups(same, (host) => host.machine.slice(0, 8));
      for (const [machine, equal] of machines) {
        for (const host of equal) {
          const machinePart = same.length > 1 ? [machine || "no id"] : [];
          const idPart = equal.length > 1 ? [host.id.slice(0, 8)] : [];
          told.set(host.id, [...keyPart, ...machinePart, ...idPart].join(" · "));
        }
      }
    }
  }
  return told;
}

function groups(hosts, of) {
  const found = new Map();
  for (const host of hosts) {
    const name = of(host);
    if (!found.has(name)) found.set(name, []);
    found.get(name).push(host);
  }
  return found;
}
