"""`rabbitry crawl add|status|search|why|hosts|pause|resume|export` as people and programs use them."""

import asyncio
import json
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

import msgspec
import pytest
import zstandard
from warcio.archiveiterator import ArchiveIterator

import rabbitry
from rabbitry.amqp.client import Connection, Properties
from rabbitry.apps.crawl import names
from rabbitry.apps.crawl.keeper import exporting, index
from rabbitry.apps.crawl.keeper.answering import answer_questions
from rabbitry.apps.crawl.keeper.database import Database
from rabbitry.apps.crawl.keeper.inputs import Page
from rabbitry.apps.crawl.messages import Add, Answer, Command, Document, Link, Taken
from rabbitry.cli import _root
from tests.support.ports import free_port
from tests.support.waiting import WITHIN, eventually_blocking

AT = 1_800_000_000.25
HTML = b"<title>caf\xe9</title>"


class Done(NamedTuple):
    """The exit code and output of a command."""

    code: int
    out: str
    err: str


Run = Callable[..., Done]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a command in this process."""
    monkeypatch.delenv("RABBITRY_DATABASE", raising=False)

    def run(*arguments: str) -> Done:
        capsys.readouterr()
        code = _root.run(("crawl", *arguments))
        return Done(int(code), *capsys.readouterr())

    return run


@pytest.fixture
def database_url(tmp_path: Path) -> str:
    """A crawl's database with documents and pages."""
    url = f"sqlite:///{tmp_path / 'crawl.sqlite3'}"
    with Database(url) as database:
        database.write_now(partial(index.store, documents=_documents()))
        database.write_now(partial(index.store_pages, pages=_pages()))
    return url


def _documents() -> list[Document]:
    return [
        Document(
            f"http://h{number % 3}.example/{number}",
            AT + 1,
            "b2",
            "c1",
            AT + number,
            title=f"Title {number}\x1b[31m",
            text=f"apples number{number}\nsecond line \u202e end",
            language="en",
            keywords=["apples"],
            links=[Link("http://h0.example/")],
            cut=2,
        )
        for number in range(7)
    ]


def _pages() -> list[Page]:
    headers = {"content-type": "text/html; charset=latin-1", "content-encoding": "gzip", "etag": '"x\r\ny"'}
    return [
        Page(
            url=f"http://h{number % 3}.example/{number}",
            fetched_at=AT + number,
            body=zstandard.compress(HTML + b"%d" % number),
            content_type="text/html; charset=latin-1",
            headers=headers,
        )
        for number in range(5)
    ]


@contextmanager
def keeper(url: str, database_url: str, replies: Callable[[Command], Answer] | None = None) -> Iterator[list[Command]]:
    """Answer questions from a database, and commands as the test says, in a thread; yield the commands."""
    came: list[Command] = []
    started = threading.Event()
    loop = asyncio.new_event_loop()
    stop = asyncio.Event()

    async def commands(connection: Connection) -> None:
        channel = await connection.channel()
        await channel.declare_queue(names.KEEPER_QUEUE, durable=True, arguments={"x-single-active-consumer": True})
        async with channel.consume(names.KEEPER_QUEUE) as deliveries:
            started.set()
            async for delivery in deliveries:
                command: Command = msgspec.json.decode(delivery.body, type=Command)
                came.append(command)
                properties = delivery.properties
                if replies is not None and properties.reply_to:
                    await channel.publish(
                        msgspec.json.encode(replies(command)),
                        routing_key=properties.reply_to,
                        properties=Properties(correlation_id=properties.correlation_id),
                        mandatory=False,
                    )
                delivery.ack()

    async def serve() -> None:
        async with rabbitry.connect(url) as connection:
            await (await connection.channel()).declare_queue(names.QUESTION_QUEUE, durable=True)
            task = asyncio.create_task(commands(connection))
            with Database(database_url) as database:
                await answer_questions(database, stop, asyncio.Event(), connection)
            task.cancel()
            await asyncio.wait((task,))

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    try:
        assert started.wait(WITHIN)
        with rabbitry.connect_blocking(url) as connection, connection.channel() as channel:
            eventually_blocking(
                lambda: channel.declare_queue(names.QUESTION_QUEUE, passive=True).consumer_count,
                "who answers questions",
            )
        yield came
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()
        loop.close()


# -- questions -------------------------------------------------------------------------------------------


@pytest.fixture(params=["database", "broker"])
def source(request: pytest.FixtureRequest, database_url: str) -> Iterator[tuple[str, str]]:
    """Options of a command that reads the database itself, or asks a keeper."""
    if request.param == "database":
        yield ("--database", database_url)
        return
    url = request.getfixturevalue("embedded_url")
    with keeper(url, database_url):
        yield ("--broker", url)


def test_search_shows_hits_and_json_has_one_object_a_line(run: Run, source: tuple[str, str]) -> None:
    done = run("search", "apples", *source)
    assert (done.code, "1 to 7 of 7" in done.err) == (0, True), done
    assert "http://h0.example/6" in done.out
    assert "\x1b" not in done.out
    assert "\u202e" not in done.out
    rows = [json.loads(line) for line in run("search", "apples", "--json", "--limit", "3", *source).out.splitlines()]
    assert [row["place"] for row in rows] == [1, 2, 3]
    assert all(row["snippet"][slice(*row["marks"][0])] == "apples" for row in rows)
    (row,) = [json.loads(line) for line in run("search", "number4", "--json", *source).out.splitlines()]
    assert (row["url"], row["fetched_at"]) == ("http://h1.example/4", "2027-01-15T08:00:04.250+00:00")


def test_words_that_begin_with_a_dash_are_left_out(run: Run, source: tuple[str, str]) -> None:
    rows = run("search", "apples", "-number1", "-site:h0.example", "--json", *source).out.splitlines()
    assert {json.loads(row)["url"].rpartition("/")[2] for row in rows} == {"2", "4", "5"}


def test_any_words_are_a_search(run: Run, source: tuple[str, str]) -> None:
    nothing = run("search", "pears", *source)
    assert (nothing.code, nothing.out, nothing.err) == (0, "", "rabbitry: no page matches\n")
    assert run("search", "pears", "--json", *source).out == ""
    for words in ("AND", "NOT", "NEAR(a b)", "title:", "^", "a*", "--", "site:", "x" * 200_000, "apples " * 50):
        done = run("search", *source, "--", words)
        assert done.code == 0, (words, done)
    noted = run("search", "***", "--json", *source)
    assert (noted.code, noted.out, noted.err) == (0, "", "rabbitry: the search has no letter and no digit\n")
    assert len(run("search", "-number1", "--json", *source).out.splitlines()) == 6


def test_words_that_look_like_options_come_after_two_dashes(run: Run, source: tuple[str, str]) -> None:
    for words, number in ((("--apples",), 7), (("apples", "--number1"), 1), (("-number1",), 6), (("--json",), 0)):
        done = run("search", "--json", *source, "--", *words)
        assert (done.code, len(done.out.splitlines())) == (0, number), (words, done)
    for typed in ("--nonsense", "--limt apples", "--nonsense -- --apples"):
        done = run("search", *source, *typed.split())
        assert (done.code, done.out, "write -- before the words" in done.err) == (2, "", True), (typed, done)


def test_blank_and_missing_words_are_refused(run: Run, source: tuple[str, str]) -> None:
    for words in ("", " ", "\udcff"):
        done = run("search", words, *source)
        assert (done.code, done.out, done.err.count("\n")) == (2, "", 1), (words, done)
    assert run("search", *source).code == 2


def test_status_prints_text_or_a_json_object(run: Run, source: tuple[str, str]) -> None:
    done = run("status", *source)
    assert done.code == 0, done
    assert "7 in the index" in done.out
    assert ("nodes      unknown" if source[0] == "--database" else "nodes      none runs") in done.out
    found = json.loads(run("status", "--json", *source).out)
    assert (found["documents"], found["paused"], found["hosts"]["known"]) == (7, False, 0)


def test_why_and_hosts_answer_if_nothing_is_known(run: Run, source: tuple[str, str]) -> None:
    done = run("why", "http://nobody.example/", *source)
    assert (done.code, "not seen" in done.out) == (0, True), done
    found = json.loads(run("why", "ftp://a.example/", "--json", *source).out)
    assert (found["state"], found["would"], found["decisions"]) == ("unknown", "bad-scheme", [])
    wrong = run("why", "\udcff", *source)
    assert (wrong.code, wrong.err) == (2, "rabbitry: URL is not UTF-8: '\\xff'\n")
    hosts = run("hosts", *source)
    assert (hosts.code, hosts.out, "no hosts yet" in hosts.err) == (0, "", True)
    assert run("hosts", "--json", *source).out == ""


def test_a_file_that_is_not_a_database_is_refused(run: Run, tmp_path: Path) -> None:
    for url, code in ((f"sqlite:///{tmp_path}/none", 1), ("mysql://x/y", 2), ("nonsense", 2)):
        for command in (("status",), ("search", "x"), ("why", "http://a/"), ("hosts",), ("export",)):
            done = run(*command, "--database", url)
            assert (done.code, done.out, done.err.count("\n")) == (code, "", 1), (url, command, done)


def test_a_broker_that_is_away_ends_each_command_with_3(run: Run) -> None:
    url = f"amqp://127.0.0.1:{free_port()}"
    for command in (("status",), ("search", "x"), ("add", "http://a.example/"), ("pause",), ("export",)):
        done = run(*command, "--broker", url)
        assert (done.code, done.out, done.err.count("\n")) == (3, "", 1), (command, done)


def test_without_a_keeper_queries_fail_with_advice(run: Run, embedded_url: str) -> None:
    for command in (("status",), ("search", "x"), ("why", "http://a/"), ("hosts",), ("export",)):
        done = run(*command, "--broker", embedded_url)
        assert (done.code, done.out) == (1, ""), (command, done)
        assert "no keeper runs on this broker: start one" in done.err


# -- commands --------------------------------------------------------------------------------------------


def test_add_sends_its_options_and_prints_the_outcomes(
    run: Run, embedded_url: str, database_url: str, tmp_path: Path
) -> None:
    def reply(command: Command) -> Answer:
        assert isinstance(command, Add)
        return Answer(["crawl 1 begins"], addresses=[Taken(url, "queued") for url in command.urls])

    seeds = tmp_path / "seeds"
    seeds.write_text("\ufeff# seeds\nhttp://b.example/\n\n  http://a.example/ \r\nhttp://b.example/\n")
    with keeper(embedded_url, database_url, reply) as came:
        options = ("--depth", "3", "--allow", "a.example", "--allow", "*.B.example", "--limit", "9", "--delay", "0.5")
        where = ("--broker", embedded_url)
        done = run(
            "add", "http://a.example/", "--file", str(seeds), *options, "--contact", "me@a.example", *where, "--json"
        )
        assert done.code == 0, done
        rows = [json.loads(line) for line in done.out.splitlines()]
        assert rows[:2] == [
            {"url": "http://a.example/", "outcome": "queued", "detail": ""},
            {"url": "http://b.example/", "outcome": "queued", "detail": ""},
        ]
        assert run("add", "http://c.example/", "--same-host", *where).out.splitlines()[0].split() == [
            "queued",
            "http://c.example/",
        ]
    assert came == [
        Add(
            ["http://a.example/", "http://b.example/"], 3, False, ["a.example", "b.example"], 9, "me@a.example", 0.5,
        ),
        Add(["http://c.example/"], same_host=True),
    ]  # fmt: skip


def test_very_many_addresses_go_in_several_commands(
    run: Run, embedded_url: str, database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rabbitry.apps.crawl.commands.add.AT_ONCE", 100)
    monkeypatch.setattr("rabbitry.apps.crawl.commands.add.LIMITED", 200)
    seeds = tmp_path / "seeds"
    seeds.write_text("".join(f"http://h{number}.example/\n" for number in range(250)))
    with keeper(embedded_url, database_url, lambda _: Answer(["added"])) as came:
        assert run("add", "--file", str(seeds), "--broker", embedded_url).out == "added\n" * 3
    assert [len(command.urls) for command in came if isinstance(command, Add)] == [100, 100, 50]
    done = run("add", "--file", str(seeds), "--limit", "5", "--broker", embedded_url)
    assert (done.code, "--limit works for at most 200 addresses at once" in done.err) == (2, True)
    monkeypatch.setattr("rabbitry.apps.crawl.commands.add.BYTES_AT_ONCE", 1_000)
    with keeper(embedded_url, database_url, lambda _: Answer(["added"])) as came:
        assert run("add", "--file", str(seeds), "--broker", embedded_url).code == 0
    sizes = [len(command.urls) for command in came if isinstance(command, Add)]
    assert (sum(sizes), max(sizes) < 50) == (250, True)


def test_a_command_refused_by_the_keeper_fails(run: Run, embedded_url: str, database_url: str) -> None:
    with keeper(embedded_url, database_url, lambda _: Answer(error="say --contact")):
        done = run("add", "http://a.example/", "--broker", embedded_url)
        assert (done.code, done.err) == (1, "rabbitry: say --contact\n")


def test_commands_without_a_keeper_wait_for_one(run: Run, embedded_url: str, database_url: str) -> None:
    for command in (("add", "http://a.example/"), ("pause",), ("resume", "--json")):
        done = run(*command, "--broker", embedded_url)
        assert (done.code, "kept in queue 'crawl.keeper' until a keeper takes it" in done.err) == (0, True), done
        assert ('"waiting":true' in done.out) == ("--json" in command)
    with keeper(embedded_url, database_url, lambda _: Answer(["done"])) as came:
        assert run("resume", "--broker", embedded_url).out == "done\n"
    assert [type(command).__name__ for command in came] == ["Add", "Pause", "Resume", "Resume"]


def test_wrong_input_is_refused_before_anything_is_sent(run: Run, tmp_path: Path) -> None:
    binary, bad = tmp_path / "binary", tmp_path / "bad"
    binary.write_bytes(b"\xff\xfehttp://a.example/")
    bad.write_text("# seeds\nnonsense\n" + "ftp://b.example/\n" * 20)
    url = "http://a.example/"
    cases: list[tuple[tuple[str, ...], str]] = [
        ((), "no addresses"),
        (("",), "is not an address"),
        (("nonsense",), "is not an address"),
        (("ftp://a.example/",), "can't be crawled: use http or https"),
        (("javascript:alert(1)",), "can't be crawled: use http or https"),
        (("http://",), "is not an address"),
        (("http://a.example:99999/",), "is not an address"),
        ((url + "x" * 3_000,), "at most 2000 bytes"),
        ((url, "nonsense"), "nothing was added"),
        ((url, "--same-host", "--allow", "a.example"), "can't be combined"),
        ((url, "--allow", "http://a.example/x"), "is not a domain"),
        ((url, "--allow", ""), "is not a domain"),
        ((url, "--delay", "nan"), "pass seconds, 0 or more"),
        ((url, "--delay", "-1"), "pass seconds, 0 or more"),
        ((url, "--delay", "inf"), "pass seconds, 0 or more"),
        ((url, "--delay", "90000"), "a day"),
        ((url, "--recrawl", "0"), "more than 0"),
        ((url, "--depth", "-1"), "depth"),
        ((url, "--limit", "0"), "limit"),
        ((url, "--limit", "many"), "limit"),
        ((url, "--contact", " "), "--contact"),
        ((url, "--contact", "bla"), "--contact is 'bla': pass a mail address (me@example.org) or the URL of a page"),
        ((url, "-"), "pass no others"),
        (("--file", str(tmp_path / "missing")), "can't be read"),
        (("--file", str(tmp_path)), "can't be read"),
        (("--file", str(binary)), "it is not UTF-8 text"),
        (("--file", str(bad)), "21 addresses can't be crawled; nothing was added"),
    ]
    for arguments, why in cases:
        done = run("add", *arguments, "--broker", f"amqp://127.0.0.1:{free_port()}")
        assert (done.code, done.out, why in done.err) == (2, "", True), (arguments, done)
    assert f"{bad}, line 2: 'nonsense' is not an address" in done.err


def test_wrong_lines_of_a_file_are_named_and_the_others_are_added(
    run: Run, embedded_url: str, database_url: str, tmp_path: Path
) -> None:
    seeds = tmp_path / "seeds"
    lines = [
        b"\xef\xbb\xbfhttp://a.example/",
        b"nonsense",
        b"http://\xff.example/",
        b"http://b.example/" + b"x" * 300_000,
    ]
    seeds.write_bytes(b"\r\n".join([*lines, b"http://c.example/\rhttp://d.example/"]))
    with keeper(embedded_url, database_url, lambda _: Answer(["added"])) as came:
        done = run("add", "--file", str(seeds), "--broker", embedded_url)
    assert [command.urls for command in came if isinstance(command, Add)] == [
        ["http://a.example/", "http://c.example/", "http://d.example/"]
    ]
    assert (done.code, done.out) == (1, "added\n")
    said = done.err.splitlines()
    assert said[0] == f"rabbitry: {seeds}, line 2: 'nonsense' is not an address: write https://host/path"
    assert said[1] == f"rabbitry: {seeds}, line 3: it is not UTF-8 text"
    assert said[2].startswith(f"rabbitry: {seeds}, line 4: an address must have at most 2000 bytes")
    assert said[3:] == ["rabbitry: 3 of 6 addresses can't be crawled; the others were added"]


def test_many_addresses_without_a_keeper_wait_and_are_reported_once(
    run: Run, embedded_url: str, database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rabbitry.apps.crawl.commands.add.AT_ONCE", 10)
    seeds = tmp_path / "seeds"
    seeds.write_text("".join(f"http://h{number}.example/\n" for number in range(200)))
    done = run("add", "--file", str(seeds), "--broker", embedded_url)
    assert (done.code, done.out, len(done.err.splitlines())) == (0, "", 1)
    with keeper(embedded_url, database_url, lambda _: Answer(["done"])) as came:
        assert run("resume", "--broker", embedded_url).out == "done\n"
    assert [len(command.urls) for command in came if isinstance(command, Add)] == [10] * 20


# -- export ----------------------------------------------------------------------------------------------


def test_export_writes_each_document_once(
    run: Run, source: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporting, "AT_ONCE", 2)
    lines = run("export", *source).out.splitlines()
    rows = [json.loads(line) for line in lines]
    assert [row["url"] for row in rows] == [f"http://h{number % 3}.example/{number}" for number in range(7)]
    first = rows[0]
    assert {name: first[name] for name in ("title", "status", "fetched_at", "text", "links", "language")} == {
        "title": "Title 0\x1b[31m",
        "status": 200,
        "fetched_at": "2027-01-15T08:00:00.250+00:00",
        "text": "apples number0\nsecond line \u202e end",
        "links": 3,
        "language": "en",
    }
    assert all(line.isprintable() for line in lines)
    file = tmp_path / "out.jsonl"
    file.write_text("old")
    done = run("export", "--output", str(file), *source)
    assert (done.code, done.out, "7 documents written to" in done.err) == (0, "", True)
    assert file.read_text().splitlines() == lines


def test_a_warc_file_is_read_back_with_correct_digests(run: Run, source: tuple[str, str], tmp_path: Path) -> None:
    file = tmp_path / "pages.warc.gz"
    done = run("export", "--warc", str(file), "--json", *source)
    assert json.loads(done.out) == {"documents": 7, "without_page": 2, "files": [str(file)]}
    assert "2 documents left out of" in done.err
    records = []
    with file.open("rb") as stream:
        for record in ArchiveIterator(stream, check_digests="raise"):
            records.append((record.rec_type, record.rec_headers, record.http_headers, record.content_stream().read()))
    (kind, info, _, text), *responses = records
    assert (kind, info.get_header("WARC-Filename"), info.protocol) == ("warcinfo", "pages.warc.gz", "WARC/1.1")
    assert b"software: rabbitry " in text
    for number, (kind, headers, http, body) in enumerate(responses):
        assert (kind, body) == ("response", HTML + b"%d" % number)
        assert headers.get_header("WARC-Target-URI") == f"http://h{number % 3}.example/{number}"
        assert headers.get_header("WARC-Date") == f"2027-01-15T08:00:0{number}.250Z"
        assert headers.get_header("WARC-Payload-Digest").startswith("sha1:")
        assert (http.protocol, http.statusline) == ("HTTP/1.1", "200 OK")
        assert http.get_header("Content-Length") == str(len(body))
        assert (http.get_header("Content-Encoding"), http.get_header("X-Crawl-Content-Encoding")) == (None, "gzip")
        assert http.get_header("etag") == '"x  y"'
    assert len(responses) == 5
    # WARC has one gzip member for each record.
    assert file.read_bytes().count(b"\x1f\x8b\x08") >= 6


def test_a_file_is_written_whole_or_not_at_all(
    run: Run, database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    file, warc, pipe = folder / "out.jsonl", folder / "out.warc.gz", tmp_path / "pipe.warc.gz"
    file.write_text("old")
    os.mkfifo(pipe)
    away = ("--broker", f"amqp://127.0.0.1:{free_port()}")
    assert run("export", "--output", str(file), "--warc", str(warc), *away).code == 3
    assert [path.name for path in folder.iterdir()] == ["out.jsonl"]
    assert file.read_text() == "old"
    here = ("--database", database_url)
    for arguments in (
        ("--output", str(folder)),
        ("--output", "/dev/null"),
        ("--warc", str(pipe)),
        ("--output", str(folder / "missing" / "x")),
        ("--warc", str(folder / "out.warc")),
        ("--warc", str(folder / "no" / "x.warc.gz")),
        ("--warc", str(warc), "--output", str(warc)),
        ("--output", ""),
    ):
        done = run("export", *arguments, *here)
        assert (done.code, done.out, done.err.count("\n")) == (2, "", 1), (arguments, done)
    assert [path.name for path in folder.iterdir()] == ["out.jsonl"]
    link = tmp_path / "link.jsonl"
    link.symlink_to(file)
    assert run("export", "--output", str(link), *here).code == 0
    assert (link.is_symlink(), len(file.read_text().splitlines())) == (True, 7)


def test_an_index_without_documents_exports_nothing(run: Run, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'empty.sqlite3'}"
    with Database(url):
        pass
    done = run("export", "--database", url)
    assert (done.code, done.out, "no documents yet" in done.err) == (0, "", True)
    warc = tmp_path / "empty.warc.gz"
    assert run("export", "--warc", str(warc), "--output", str(tmp_path / "o"), "--database", url).code == 0
    with warc.open("rb") as stream:
        assert [record.rec_type for record in ArchiveIterator(stream)] == ["warcinfo"]
    assert (tmp_path / "o").read_text() == ""
