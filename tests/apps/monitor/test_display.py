"""How statistics are displayed."""

import io
import json

import pytest
from rich.console import Console

from rabbitry.apps.monitor.display import json_sample, json_summary, plain_sample, plain_summary, table
from rabbitry.apps.monitor.statistics import Counts

HOSTILE = "[red]\x1b[2Jpi\r\n‮"


@pytest.fixture
def counts() -> Counts:
    counts = Counts()
    counts.add("pi-1", 0.5, {"eth0": (1500, 0), "usb0": (1, 1)})
    counts.add("pi-1", 0.25, {"eth0": (2.5e9, 10)})
    counts.add(HOSTILE, 1.0, {HOSTILE: (1, 2)})
    counts.skipped = 3
    return counts


def drawn(counts: Counts) -> str:
    console = Console(width=140, record=True, file=io.StringIO(), force_terminal=True)
    console.print(table(counts))
    return console.export_text(styles=True)


def test_plain_lines_are_those_of_the_latest_sample(counts: Counts) -> None:
    assert plain_sample("pi-1", counts.hosts["pi-1"]) == (
        "pi-1 cpu 0.25 high 0.5 low 0.25\n"
        "pi-1 eth0 rx 2500000000 B/s high 2500000000 B/s low 1500 B/s\n"
        "pi-1 eth0 tx 10 B/s high 10 B/s low 0 B/s\n"
    )


def test_the_plain_summary_has_every_quantity(counts: Counts) -> None:
    lines = plain_summary(counts).splitlines()
    assert lines[0] == "summary: samples 3, routing keys 2, messages skipped 3"
    assert [line for line in lines if line.startswith("pi-1 usb0")]
    assert len(lines) == 1 + 3 + 5


def test_json_is_one_line_for_a_sample_and_for_all(counts: Counts) -> None:
    sample = json.loads(json_sample("pi-1", counts.hosts["pi-1"]))
    assert list(sample["net"]) == ["eth0"]
    summary = json.loads(json_summary(counts))
    assert set(summary["hosts"]) == {"pi-1", HOSTILE}
    assert set(summary["hosts"]["pi-1"]["net"]) == {"eth0", "usb0"}
    assert set(summary["hosts"]["pi-1"]["cpu"]) == {"count", "current", "low", "high", "mean", "stddev", "p50", "p95"}


def test_the_table_is_in_units_for_people(counts: Counts) -> None:
    text = drawn(counts)
    for shown in ("25.0 %", "50.0 %", "2.5 GB/s", "1.5 kB/s", "10 B/s", "messages skipped 3"):
        assert shown in text


def test_names_from_the_wire_can_t_steer_the_terminal(counts: Counts) -> None:
    host = counts.hosts[HOSTILE]
    for text in (plain_sample(HOSTILE, host), plain_summary(counts), json_sample(HOSTILE, host), json_summary(counts)):
        assert all(line.isprintable() for line in text.splitlines())
    text = drawn(counts)
    assert "\x1b[2J" not in text
    assert "‮" not in text
    assert "[red]" in text
