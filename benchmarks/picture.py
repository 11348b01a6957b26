"""A chart of ratios: for each measure a bar for each peer, relative to a reference, and the target."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import matplotlib as mpl
from matplotlib.figure import Figure

_COLOURS: Final = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9")  # told apart by colour-blind people too
_INCHES_PER_BAR: Final = 0.24


@dataclass(frozen=True)
class Measure:
    """One measure. times: peer → its factor over the reference, above 0; target: the target factor, if any."""

    name: str
    times: dict[str, float]
    target: float | None = None


def draw(path: Path, title: str, reference: str, measures: Sequence[Measure], note: str) -> None:
    """Draw horizontal bars on a logarithmic scale and write them as SVG; the same input gives the same bytes.

    reference: the peer to which all are compared; note: a line on how and where it was measured.
    """
    peers = list(dict.fromkeys(peer for measure in measures for peer in measure.times))
    with mpl.rc_context({"svg.hashsalt": "rabbitry", "svg.fonttype": "none", "font.family": "sans-serif"}):
        rows = sum(len(measure.times) + 1 for measure in measures)
        figure = Figure(figsize=(9, 1.5 + rows * _INCHES_PER_BAR), layout="constrained")
        axes = figure.subplots()
        axes.set_xscale("log")
        at = 0.0
        ticks = []
        for measure in measures:
            top = at
            for peer, times in measure.times.items():
                colour = _COLOURS[peers.index(peer) % len(_COLOURS)]
                axes.barh(at, times - 1, left=1, height=0.85, color=colour)
                side = "left" if times >= 1 else "right"
                pad = 4 if times >= 1 else -4
                axes.annotate(f"{times:.3g}×", (times, at), (pad, 0), textcoords="offset points", ha=side, va="center")
                at += 1
            ticks.append((top + at - 1) / 2)
            if measure.target is not None:
                axes.plot([measure.target] * 2, [top - 0.6, at - 0.4], color="black", linewidth=2)
            at += 1
        axes.set_yticks(ticks, [measure.name for measure in measures])
        axes.axvline(1, color="gray", linewidth=1)
        axes.margins(x=0.12)
        axes.invert_yaxis()
        axes.set_xlabel(f"times {reference} (logarithmic)")
        axes.xaxis.set_major_formatter("{x:g}×")
        for peer, colour in zip(peers, _COLOURS, strict=False):
            axes.barh(0, 0, color=colour, label=peer)
        if any(measure.target is not None for measure in measures):
            axes.plot([], [], color="black", linewidth=2, label="to be reached")
        axes.spines[["top", "right"]].set_visible(False)
        figure.legend(loc="outside lower center", ncols=4, frameon=False)
        axes.set_title(f"{title}\n", loc="left", fontweight="bold")
        axes.text(0, 1.01, note, transform=axes.transAxes, fontsize=8, color="dimgray")
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, format="svg", metadata={"Date": None})
