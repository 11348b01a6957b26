"""The app of examples/board, run as somebody's who installed it: its command, its page, and what `rabbitry up` runs."""

import re
import signal
from pathlib import Path

import httpx
import pytest

from rabbitry.testing import RunningBroker
from tests.support import commands
from tests.support.plugins import install, install_example
from tests.support.waiting import eventually_blocking

_EXAMPLE = Path(__file__).parents[2] / "examples" / "board"
_FREE = ("--port", "0", "--web-port", "0", "--http-port", "0", "--management-port", "0")


@pytest.fixture
def board(tmp_path: Path) -> dict[str, str]:
    """The environment in which the example is installed."""
    return install_example(tmp_path, _EXAMPLE)


def _notes(page: str) -> list[str]:
    found: list[str] = httpx.get(f"{page}board/api/notes", timeout=90).json()
    return found


def test_a_posted_note_is_on_the_page(board: dict[str, str]) -> None:
    with RunningBroker() as broker:
        more = board | {"RABBITRY_BROKER": broker.url}
        with commands.service("web", "--port", "0", more=more) as web:
            page = web.wait_for(r"dashboard on (http://\S+/)")[1]
            navigation = httpx.get(f"{page}static/views.js", timeout=90).text
            assert '{"section":"Apps","title":"Board","path":"board/"}' in navigation
            script = re.search(r'src="../(board/static/board\.js\?v=\w+)"', httpx.get(f"{page}board/", timeout=90).text)
            assert script is not None
            assert httpx.get(f"{page}{script[1]}", timeout=90).status_code == 200

            def posted() -> bool:
                # The page's queue may not be bound yet when the first note is posted.
                done = commands.run("board", "hello", more=more)
                assert (done.returncode, done.stdout) == (0, ""), done.stderr
                return "hello" in _notes(page)

            eventually_blocking(posted, "the note")
            web.process.send_signal(signal.SIGTERM)
            assert web.process.wait(90) == 0, web.output
            assert "WARNING" not in web.output


def test_up_runs_the_apps_service_with_its_option(board: dict[str, str]) -> None:
    assert "--remind-each" in commands.run("up", "--help", more=board).stdout
    with commands.service("up", *_FREE, "--memory", "--apps", "board", "--remind-each", "0.1", more=board) as up:
        page = up.wait_for(r"live: (http://\S+/)")[1]
        eventually_blocking(lambda: "drink some water" in _notes(page), "the reminder")
        up.process.send_signal(signal.SIGTERM)
        assert up.process.wait(90) == 0, up.output


def test_a_broken_service_is_left_out_and_the_others_run(tmp_path: Path) -> None:
    code = """
        from rabbitry.apps import Plugin, Service, Services
        import typer

        def fails():
            raise SystemExit("no good")

        def services(up):
            return Services(children=(Service(name="the bad one", arguments=("bad",), after_page=False),))

        def router(site):
            raise ValueError("no page")

        commands = typer.Typer()
        commands.command()(fails)
        plugin = Plugin(
            name="bad", title="X", commands="bad_app:commands", router="bad_app:router", services="bad_app:services"
        )
    """
    more = install(tmp_path, "bad", code)
    with commands.service("up", *_FREE, "--memory", "--apps", "bad,monitor", more=more) as up:
        page = up.wait_for(r"live: (http://\S+/)")[1]
        up.wait_for(r"the bad one is left out: the bad one ended with exit code 1")
        up.wait_for(r"app 'bad' of bad-app 1\.0 does not load: ValueError: no page")
        eventually_blocking(lambda: httpx.get(f"{page}healthz", timeout=90).json()["samples"], "samples")
        assert httpx.get(f"{page}grading/", timeout=90).status_code == 200
        up.process.send_signal(signal.SIGTERM)
        assert up.process.wait(90) == 0, up.output


def test_an_invalid_course_does_not_affect_other_apps(tmp_path: Path) -> None:
    (tmp_path / "grading.toml").write_text("modules = [")
    more = {"RABBITRY_GRADING": str(tmp_path / "grading.toml")}
    with commands.service("up", *_FREE, "--memory", "--apps", "monitor,grading", more=more) as up:
        page = up.wait_for(r"live: (http://\S+/)")[1]
        up.wait_for(r"grading is left out: .*grading\.toml")
        eventually_blocking(lambda: httpx.get(f"{page}healthz", timeout=90).json()["samples"], "samples")
        up.process.send_signal(signal.SIGTERM)
        assert up.process.wait(90) == 0, up.output


_ODD = """
    from pathlib import Path
    from typing import Annotated

    import typer
    from rabbitry.apps import Plugin, Services, View

    Option = Annotated[{annotation}, typer.Option()]

    def services(up, {option}: Option = None):
        return Services()

    def router(site, {option}: Option = None):
        return {router}

    plugin = Plugin(
        name="odd", title="X", router="odd_app:router", services="odd_app:services",
        views=(View(title="X", module="x.js"),), static=Path({static!r}),
    )
"""


@pytest.mark.parametrize(
    ("option", "annotation", "words"),
    [
        ("memory", "bool", "app 'odd' can't have the options --memory: they are already taken"),
        ("http_port", "int", "app 'odd' can't have the options --http-port: they are already taken"),
        ("context", "int", "app 'odd' can't have the options --context: they are already taken"),
        ("thing", "object", ""),
    ],
)
def test_conflicting_options_do_not_affect_other_apps(tmp_path: Path, option: str, annotation: str, words: str) -> None:
    more = install(tmp_path, "odd", _ODD.format(option=option, annotation=annotation, router=None, static="."))
    done = commands.run("up", "--help", more=more)
    assert done.returncode == 0, done.stderr
    assert words in done.stderr
    assert "--person" in done.stdout
    assert "--thing" not in done.stdout


@pytest.mark.parametrize(
    ("router", "static", "words"),
    [
        ("'text'", "/", "'odd_app:router' returned a str, and no fastapi.APIRouter"),
        ("__import__('fastapi').APIRouter()", "/no/such/folder", "its static folder '/no/such/folder' is not there"),
    ],
)
def test_broken_pages_are_reported_and_left_out(tmp_path: Path, router: str, static: str, words: str) -> None:
    more = install(tmp_path, "odd", _ODD.format(option="thing", annotation="int", router=router, static=static))
    with RunningBroker() as broker:
        with commands.service("web", "--port", "0", more=more | {"RABBITRY_BROKER": broker.url}) as web:
            page = web.wait_for(r"dashboard on (http://\S+/)")[1]
            web.wait_for(f"app 'odd' of odd-app 1.0 does not load: {words}")
            assert httpx.get(f"{page}grading/", timeout=90).status_code == 200
            assert httpx.get(f"{page}odd/", timeout=90).status_code == 404
