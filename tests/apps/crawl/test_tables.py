"""The tables of `rabbitry crawl` on terminals of any width, with names of any length."""

import unicodedata

import pytest

from rabbitry.apps.crawl.answers import Decision, HostAnswer, Hosts, NodeSeen, Status, Why
from rabbitry.apps.crawl.commands import asking
from rabbitry.apps.crawl.commands._words import print_table

LONG = f"https://{'a-very-long-name.' * 4}example.org:8443"
WIDE = "東京" * 30
HOSTS = Hosts(
    [
        HostAnswer("http://a.example", 12, 3, 1_234_567, 0.5, None, robots="robots", last=[Decision(1.0, "page")]),
        HostAnswer(
            LONG, 1, 0, 2, 7_200.0, 1.0, is_out=True, last=[Decision(1.0, "no-connection"), Decision(1.0, "page")]
        ),
    ],
    2,
)
STATUS = Status(1.0, outcomes={"page": 1_234_567, "trap": 1}, nodes=[NodeSeen("crawler", "a3f", 1.0, WIDE, 1_000_000)])
WHY = Why(f"{LONG}/", "done", [Decision(1.0, "redirect", "crawler a3f", WIDE), Decision(2.0, "page", "keeper", LONG)])


def cells(line: str) -> int:
    """Return the columns of a terminal that a line takes."""
    return sum(1 + (unicodedata.east_asian_width(letter) in "WF") for letter in line)


@pytest.mark.parametrize("width", [20, 50, 80, 120])
def test_tables_fit_a_terminal(width: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    rows = [(LONG, "1,234,567", WIDE, "0.5 s"), ("short", "1", "", "7 s")]
    print_table(rows, ("name", "number", "text", "delay"), right={1, 3}, indent=2)
    out = capsys.readouterr().out
    lines = out.splitlines()
    assert max(map(cells, lines)) <= width or width == 20, "a terminal too narrow for columns wraps lines itself"
    assert "\x1b" not in out
    joined = "".join(out.split())
    for letter in "東京":
        assert joined.count(letter) == 30, "no part of a cell is cut"
    if width >= 50:
        assert "1,234,567" in out, "numbers are folded last"
        assert lines[0].split() == ["name", "number", "text", "delay"]


def test_all_tables_of_queries_fit_a_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    asking._show_hosts(HOSTS)
    lines = capsys.readouterr().out.splitlines()
    assert max(map(cells, lines)) <= 80
    assert lines[0].split() == ["host", "queued", "sent", "done", "delay", "next", "last", "outcomes"]
    asking._show_status(STATUS)
    status = capsys.readouterr().out
    assert max(map(cells, status[status.index("outcomes") :].splitlines())) <= 80
    asking._show_why(WHY)
    first, *decisions = capsys.readouterr().out.splitlines()
    assert LONG in first
    assert max(map(cells, decisions)) <= 80


def test_a_row_stays_a_line_elsewhere(capsys: pytest.CaptureFixture[str]) -> None:
    asking._show_hosts(HOSTS)
    head, first, second = capsys.readouterr().out.splitlines()
    assert head.index("queued") + len("queued") == second.index(" 0 ") - 4  # the numbers end under their heading
    assert (first.split()[0], second.split()[0]) == ("http://a.example", LONG)
    asking._show_why(WHY)
    assert [len(line.split(WIDE)) for line in capsys.readouterr().out.splitlines()] == [1, 2, 1]


def test_no_line_is_printed_without_rows(capsys: pytest.CaptureFixture[str]) -> None:
    asking._show_why(Why("http://a.example/", "unknown", []))
    assert capsys.readouterr().out == "http://a.example/: not seen\n"
    asking._show_status(Status(1.0, nodes=[]))
    assert capsys.readouterr().out.splitlines()[-1].split() == ["nodes", "none", "runs"]


def test_cells_are_text(capsys: pytest.CaptureFixture[str]) -> None:
    print_table([("[bold]a[/bold]", "b\x1b[31m\nc", ":smile:")])
    assert capsys.readouterr().out == "[bold]a[/bold]  b [31m c  :smile:\n"
