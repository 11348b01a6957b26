"""Databases and commands for the tests of grading."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from rabbitry.apps.grading import asking
from rabbitry.apps.grading.records import Database
from rabbitry.cli import _root
from tests.apps.grading._commands import Done, Run
from tests.support.postgresql import PostgreSQL
from tests.support.waiting import WITHIN


@pytest.fixture(autouse=True)
def _patient_questions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Accept late answers of a coordinator, as a busy machine gives them."""
    monkeypatch.setattr(asking, "ANSWER_WITHIN", WITHIN)


def _is_beside_rabbitmq(request: pytest.FixtureRequest) -> bool:
    return "broker_url" in request.fixturenames and request.node.callspec.params["broker_url"] != "embedded"


@pytest.fixture
def found_url(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """URL of an empty database that commands and the page find.

    As `one_url` in a test with `broker_url`; else SQLite, or with ON_BOTH_DATABASES each in turn.
    """
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    url = f"sqlite:///{tmp_path / 'course.sqlite3'}"
    if getattr(request, "param", "sqlite") == "postgresql" or _is_beside_rabbitmq(request):
        server: PostgreSQL = request.getfixturevalue("postgresql_server")
        url = server.create_database()
    monkeypatch.setenv("RABBITRY_DATABASE", url)
    return url


@pytest.fixture
def one_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """URL of an empty database: PostgreSQL beside RabbitMQ, else SQLite. Each is used, and not in all combinations."""
    if _is_beside_rabbitmq(request):
        server: PostgreSQL = request.getfixturevalue("postgresql_server")
        return server.create_database()
    return f"sqlite:///{tmp_path / 'records.sqlite3'}"


@pytest.fixture
def one_database(one_url: str) -> Iterator[Database]:
    """An open database at `one_url`."""
    with Database(one_url) as opened:
        yield opened


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    """An open database."""
    with Database(database_url) as opened:
        yield opened


@pytest.fixture
def more(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The environment of all commands of a test, in child processes and in this one."""
    broker = getattr(request, "param", "embedded")
    url: str = request.getfixturevalue(f"{broker}_url")
    more = {"RABBITRY_BROKER": url, "XDG_DATA_HOME": str(tmp_path / "data"), "XDG_CONFIG_HOME": str(tmp_path)}
    for name, value in more.items():
        monkeypatch.setenv(name, value)
    if broker == "rabbitmq":  # for the roles alone: the commands in this process are those of students
        server: PostgreSQL = request.getfixturevalue("postgresql_server")
        more["RABBITRY_DATABASE"] = server.create_database()
    return more


@pytest.fixture
def run(more: dict[str, str], capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command in this process, which saves starting Python and importing."""

    def run(*arguments: str) -> Done:
        capsys.readouterr()
        code = _root.run(("grading", *arguments))
        return Done(int(code), *capsys.readouterr())

    return run


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file with a solution."""
    path = tmp_path / "solution.py"
    path.write_text("print('hello')\n")
    return path
