"""Programs as students write them: two of one student, the same with other names, and another student's own."""

ORIGINAL = '''
import heapq


class Graph:
    """A graph with weights."""

    def __init__(self):
        self.edges = {}

    def add(self, source, target, weight):
        self.edges.setdefault(source, []).append((target, weight))
        self.edges.setdefault(target, [])


def shortest(graph, start):
    """Return the distances from the start (Dijkstra)."""
    distances = {node: float("inf") for node in graph.edges}
    distances[start] = 0
    queue = [(0, start)]
    while queue:
        distance, node = heapq.heappop(queue)
        if distance > distances[node]:
            continue
        for target, weight in graph.edges[node]:
            candidate = distance + weight
            if candidate < distances[target]:
                distances[target] = candidate
                heapq.heappush(queue, (candidate, target))
    return distances


def read(path):
    graph = Graph()
    with open(path) as file:
        for number, line in enumerate(file, 1):
            parts = line.split()
            if len(parts) != 3:
                raise ValueError(f"line {number}: {line!r}")
            graph.add(parts[0], parts[1], int(parts[2]))
    return graph


def main(path, start):
    found = shortest(read(path), start)
    for node in sorted(found):
        if found[node] < float("inf"):
            print(node, found[node])
        else:
            print(node, "cannot be reached")
'''

DISGUISED = """
# My own work!!
import heapq

def run(filename, origin):
    result = dijkstra(load(filename), origin)
    for v in sorted(result):
        if result[v] < float("infinity"):
            print(v, result[v])
        else:
            print(v, "unreachable")

def load(filename):
    g = Net()
    with open(filename) as handle:
        for i, row in enumerate(handle, 1):
            cells = row.split()     # three of them
            if len(cells) != 3:
                raise ValueError(f"row {i}: {row!r}")
            g.connect(cells[0], cells[1], int(cells[2]))
    return g

def dijkstra(g, origin):
    best = {v: float("infinity") for v in g.neighbours}
    best[origin] = 0
    heap = [(0, origin)]
    # as in the lecture
    while heap:
        d, v = heapq.heappop(heap)
        if d > best[v]:
            continue
        for w, cost in g.neighbours[v]:
            total = d + cost
            if total < best[w]:
                best[w] = total
                heapq.heappush(heap, (total, w))
    return best

class Net:
    def __init__(self):
        self.neighbours = {}

    def connect(self, a, b, cost):
        self.neighbours.setdefault(a, []).append((b, cost))
        self.neighbours.setdefault(b, [])
"""

OWN = """
import sys
from collections import defaultdict


def parse(stream):
    adjacency = defaultdict(dict)
    for line in stream:
        match line.split():
            case [a, b, cost]:
                adjacency[a][b] = min(float(cost), adjacency[a].get(b, float(cost)))
            case []:
                pass
            case _:
                sys.exit("bad input: " + line)
    return adjacency


def relax(adjacency, source):
    reached = {source: 0.0}
    for _ in range(len(adjacency) + 1):
        changed = False
        for a, row in adjacency.items():
            if a not in reached:
                continue
            for b, cost in row.items():
                if b not in reached or reached[a] + cost < reached[b]:
                    reached[b] = reached[a] + cost
                    changed = True
        if not changed:
            return reached
    raise SystemExit("a cycle of negative length")


if __name__ == "__main__":
    with open(sys.argv[1], encoding="utf-8") as stream:
        table = parse(stream)
    answer = relax(table, sys.argv[2])
    width = max(map(len, answer))
    print("\\n".join(f"{name:<{width}} {length:g}" for name, length in sorted(answer.items())))
"""

STARTER = ORIGINAL[: ORIGINAL.index("def shortest")] + ORIGINAL[ORIGINAL.index("def read") :]
"""What students were given to begin with: all but the algorithm."""

JAVA = """
public class Account {
    private final String owner;
    private long cents;

    public Account(String owner) {
        this.owner = owner;
    }

    public void deposit(long amount) {
        if (amount <= 0) {
            throw new IllegalArgumentException("amount: " + amount);
        }
        cents += amount;
    }

    public boolean withdraw(long amount) {
        if (amount > cents) {
            return false;
        }
        cents -= amount;
        return true;
    }
}
"""
