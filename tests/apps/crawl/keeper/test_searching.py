"""Searching on both databases: queries as people type them, and any other text."""

import threading
from functools import partial

import pytest

from rabbitry.apps.crawl.keeper import index, searching
from rabbitry.apps.crawl.keeper.database import Database
from rabbitry.apps.crawl.keeper.searching import read, search
from rabbitry.apps.crawl.messages import Document
from rabbitry.exceptions import UsageError

PAGES = {
    "http://www.example.org/fruit": ("Fruit", "Red apples, green pears and a café crème on the terrace."),
    "http://example.org:8080/apples": ("Apples", "A page on one fruit; the apple itself is elsewhere."),
    "http://other.example/pie": ("Pie", "Green apples make a pie, pears too. Don't say straße: NEAR the oven."),
    "http://my-example.org/numbers": ("Numbers", "C++ 3.14 snake_case state-of-the-art 東京 日本 हिन्दी"),
    "http://127.0.0.1:8000/local": ("Local", "pears at home"),
}
OTHERS = {
    "http://a.example/kanji": ("大都会", "私は東京都に住んでいます。Python3で書く"),
    "http://b.example/thai": ("ไทย", "ฉันรักภาษาไทยมาก"),
    "http://c.example/russian": ("Привет", "Ёлка стоит в лесу"),
    "http://d.example/korean": ("한국어", "서울에 삽니다"),
    "http://e.example/arabic": ("مرحبا", "أهلا وسهلا بكم"),
}


@pytest.fixture
def pages(database: Database) -> Database:
    """A database with PAGES."""
    documents = [
        Document(url, 1.0, "p", fetched_at=float(at), title=title, text=words)
        for at, (url, (title, words)) in enumerate(PAGES.items(), 1)
    ]
    database.write_now(partial(index.store, documents=documents))
    return database


def found(database: Database, typed: str) -> set[str]:
    """Return the last path segments of the addresses that a search finds."""
    return {hit.url.rpartition("/")[2] for hit in database.read_now(partial(search, typed=typed)).hits}


CASES: list[tuple[str, set[str]]] = [
    ("apples", {"fruit", "apples", "pie"}),
    ("APPLES pears", {"fruit", "pie"}),
    ('"green pears"', {"fruit"}),
    ('"pears green"', set()),
    ("pears -terrace", {"pie", "local"}),
    ('apples -"green pears" -site:example.org', {"pie"}),
    ("cafe CREME", {"fruit"}),
    ("cafe\u0301", {"fruit"}),
    ("don't", {"pie"}),
    ("straße", {"pie"}),
    ("NEAR", {"pie"}),
    ("c++", {"numbers"}),
    ("3.14", {"numbers"}),
    ("snake_case", {"numbers"}),
    ("state-of-the-art", {"numbers"}),
    ("東京", {"numbers"}),
    ("हिन्दी", {"numbers"}),
    ("apples site:example.org", {"fruit", "apples"}),
    ("site:org", {"fruit", "apples", "numbers"}),
    ("site:example.org:8080", {"apples"}),
    ("site:https://www.example.org/some/page", {"fruit"}),
    ("site:ple.org", set()),
    ("site:127.0.0.1", {"local"}),
    ("site:0.0.1", set()),
    ("site:127.0.0.1 -pears", set()),
    ("site:other.example -oven", set()),
    ("apples site:other.example site:example.org", set()),
    ('"green apples', {"pie"}),
    ("apples OR nothing", set()),
    ("title:apples", set()),
    ("appl*", set()),
    ("apples 🍏", {"fruit", "apples", "pie"}),
    ("apples\0pears", {"fruit", "pie"}),
    ("{title text} : apples", set()),
    ("elsewhere\n\tfruit", {"apples"}),
    ("--apples pears", {"fruit", "pie"}),
    ('--"green pears"', {"fruit"}),
    ("---pears", {"fruit", "pie", "local"}),
    ("apples - pears", {"fruit", "pie"}),
    ("-apples", {"numbers", "local"}),
    ("-apples -pears", {"numbers"}),
    ("-site:example.org", {"pie", "numbers", "local"}),
    ("-elsewhere -site:other.example -site:my-example.org -terrace", {"local"}),
    ("-nothing", {"fruit", "apples", "pie", "numbers", "local"}),
    ("-🍏 -!", set()),
    ("🍏 😀", set()),
    ("* : ^ ( ) { } + -", set()),
    ('""', set()),
    ("\0", set()),
    ("--", set()),
    ("site:", set()),
    ("apples site: pears", set()),
    ("site:..", set()),
    ("site:ex\u00e4mple..org", set()),
    ("apples site:" + "\u00e4." * 300 + "org", set()),
    ("apples " + "!" * 100_000, {"fruit", "apples", "pie"}),
    ("apples " * 100_000, {"fruit", "apples", "pie"}),
    ("apples " * 40 + "nothing", {"fruit", "apples", "pie"}),
    (f'"{"apples " * 100}"', set()),
    ("x" * 100_000, set()),
]


def test_words_phrases_exclusions_and_sites(pages: Database) -> None:
    for typed, expected in CASES:
        assert found(pages, typed) == expected, typed


OTHER_CASES: list[tuple[str, set[str]]] = [
    ("東京", {"kanji"}),
    ("京東", set()),
    ("東都", set()),
    ("都会 東京", {"kanji"}),
    ("住んで python3", {"kanji"}),
    ('"東京 都に"', {"kanji"}),
    ("-東京 site:a.example", set()),
    ("ภาษา", {"thai"}),
    ("ภาษาไทย", {"thai"}),
    ("ПРИВЕТ ёлка", {"russian"}),
    ("서울에", {"korean"}),
    ("مرحبا سهلا", set()),
    ("مرحبا وسهلا", {"arabic"}),
]


def test_other_scripts_are_searched_word_by_word(database: Database) -> None:
    documents = [
        Document(url, 1.0, "p", fetched_at=1.0, title=title, text=words) for url, (title, words) in OTHERS.items()
    ]
    database.write_now(partial(index.store, documents=documents))
    for typed, expected in OTHER_CASES:
        assert found(database, typed) == expected, typed


def test_words_of_a_script_without_spaces_are_marked(database: Database) -> None:
    text = "京 東 私は東京都に住んでいます。東 京"
    database.write_now(partial(index.store, documents=[Document("http://a.example/", 1.0, "p", title="T", text=text)]))
    (hit,) = database.read_now(partial(search, typed="東京 に")).hits
    assert [hit.snippet[start:end] for start, end in hit.marks] == ["東京", "に", "東 京"]


def test_words_of_a_script_without_spaces_are_replaced_with_their_document(database: Database) -> None:
    for at, text in enumerate(("私は東京都に住む", "大阪に住む", "now in English"), 1):
        document = Document("http://a.example/x", 1.0, "p", fetched_at=float(at), title="T", text=text)
        database.write_now(partial(index.store, documents=[document]))
    assert found(database, "東京") == found(database, "大阪") == found(database, "住") == set()
    assert found(database, "english") == {"x"}
    database.write_now(partial(index.remove, gone={"http://a.example/x": 9.0}))
    assert found(database, "english") == set()


@pytest.mark.parametrize("typed", ["", "   \n"])
def test_a_blank_search_is_refused(typed: str) -> None:
    with pytest.raises(UsageError, match="no word to search for"):
        read(typed)


@pytest.mark.parametrize(
    ("typed", "note"),
    [
        ("apples", ""),
        ("apples 🍏 ***", ""),
        ("-apples", ""),
        ("*** 🍏", "no letter and no digit"),
        ("\0", "no letter and no digit"),
        ("apples " + "!" * 1_000, "only the first 1,000 characters"),
        ("word " * 40, ""),
        ("word " * 41, "only the first 40 words"),
        (f'-"{"word " * 41}"', "only the first 40 words"),
        ("site:a.example " * 41, "only the first 40 words"),
    ],
)
def test_a_search_notes_what_it_leaves_out(pages: Database, typed: str, note: str) -> None:
    said = pages.read_now(partial(search, typed=typed)).note
    assert note in said
    assert bool(note) == bool(said)


ODD = [
    "NEAR(apples pears, 2)", "apples AND", "OR", "NOT NOT", "apples NOT pears", '"a" * "b"', "a*", "^apples", "title:",
    "a:b:c", "(((((", ")", '"""""', "'", "';DROP TABLE index_pages;--", "%s %(x)s :words ?", "\\", "a\\'b", "-- x",
    "&|!<->", "a & b | !c", "<2>", "a:*", "\ud800 x", "\x01\x02 x", "\u202ex", "x" * 1_000, "e\u0301" * 300,
    "ǅ ﬁ ı İ ß", "+apples", "site:%", "site:_", "site:a\"b\" c", "site:\"a b\"", "-\"\" x", "ⅷ ① ٣",
    "a " + "\u0300" * 900, "\ue000 x",
]  # fmt: skip


def test_any_text_is_a_search(pages: Database) -> None:
    for typed in ODD:
        found(pages, typed)


def test_a_search_that_only_excludes_shows_the_newest_first(pages: Database) -> None:
    hits = pages.read_now(partial(search, typed="-apples", limit=1))
    assert ([hit.title for hit in hits.hits], hits.total) == (["Local"], 2)


def test_a_search_that_only_excludes_ends_with_enough_pages(pages: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(searching, "RANKED", 2)
    monkeypatch.setattr(searching, "_STEP", 1)
    monkeypatch.setattr(searching, "LOOKED_AT", 3)
    few = pages.read_now(partial(search, typed="-terrace"))
    assert ([hit.title for hit in few.hits], few.total, few.is_more, few.note) == (["Local", "Numbers"], 2, True, "")


@pytest.mark.parametrize("step", [1, 2, 3])
def test_a_search_that_only_excludes_looks_at_a_bounded_number_of_pages(
    pages: Database, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    monkeypatch.setattr(searching, "_STEP", step)
    monkeypatch.setattr(searching, "LOOKED_AT", 4)
    all_but_one = pages.read_now(partial(search, typed="-numbers"))
    assert [hit.title for hit in all_but_one.hits] == ["Local", "Pie", "Apples"]
    assert (all_but_one.total, all_but_one.is_more) == (3, False)
    assert "the newest 4 pages only" in all_but_one.note
    second = pages.read_now(partial(search, typed="-numbers", limit=1, offset=1))
    assert ([hit.title for hit in second.hits], second.total) == (["Pie"], 3)


def test_words_in_a_title_come_first(pages: Database) -> None:
    hits = pages.read_now(partial(search, typed="fruit")).hits
    assert [hit.title for hit in hits] == ["Fruit", "Apples"]


def test_a_page_of_hits_has_the_total(pages: Database) -> None:
    first = pages.read_now(partial(search, typed="apples", limit=2))
    rest = pages.read_now(partial(search, typed="apples", limit=2, offset=2))
    assert (len(first.hits), len(rest.hits), first.total, rest.total) == (2, 1, 3, 3)
    assert len({hit.url for hit in (*first.hits, *rest.hits)}) == 3
    beyond = pages.read_now(partial(search, typed="apples", limit=10**9, offset=10**9))
    assert (beyond.hits, beyond.total) == ([], 3)
    assert len(pages.read_now(partial(search, typed="apples", limit=-5, offset=-5)).hits) == 1


def test_a_limited_number_of_documents_is_ranked(pages: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(searching, "RANKED", 2)
    few = pages.read_now(partial(search, typed="apples"))
    assert (few.total, few.is_more, len(few.hits)) == (2, True, 2)


def test_a_snippet_shows_the_words_where_they_are_together(database: Database) -> None:
    words = f"{'early apples. ' * 2}{'filler text ' * 100}Now come GRÜNE Äpfel\tand\npears {'more words ' * 100}"
    document = Document("http://a.example/", 1.0, "p", fetched_at=1.0, title="T", text=words)
    database.write_now(partial(index.store, documents=[document]))
    (hit,) = database.read_now(partial(search, typed='grune äpfel "and pears"')).hits
    assert [hit.snippet[start:end] for start, end in hit.marks] == ["GRÜNE", "Äpfel", "and pears"]
    assert len(hit.snippet) <= searching.SNIPPET
    assert hit.snippet.isprintable()


def test_a_short_text_is_a_snippet_of_its_own(pages: Database) -> None:
    (hit,) = pages.read_now(partial(search, typed="terrace")).hits
    assert hit.snippet == PAGES["http://www.example.org/fruit"][1]


def test_searches_see_whole_transactions_while_others_write(database: Database) -> None:
    stop = threading.Event()
    broken: list[str] = []

    def look() -> None:
        while not stop.is_set():
            hits = database.read_now(partial(search, typed="even", limit=100)).hits
            versions = {hit.title for hit in hits}
            if hits and (len(hits) != 20 or len(versions) != 1):
                broken.append(f"{len(hits)} {versions}")

    readers = [threading.Thread(target=look) for _ in range(3)]
    for reader in readers:
        reader.start()
    try:
        for at in range(1, 40):
            documents = [
                Document(f"http://a.example/{n}", 1.0, "p", fetched_at=float(at), title=f"v{at}", text=f"even {at} {n}")
                for n in range(20)
            ]
            database.write_now(partial(index.store, documents=documents))
    finally:
        stop.set()
        for reader in readers:
            reader.join()
    assert broken == []
