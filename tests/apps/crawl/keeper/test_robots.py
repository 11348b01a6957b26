"""The rules of robots.txt (RFC 9309) as the keeper stores them."""

import pytest

from rabbitry.apps.crawl.keeper.robots import (
    KEPT,
    LARGEST,
    LARGEST_CACHED,
    MOST_SITEMAPS,
    MOST_WILDCARDS,
    UNREAD,
    Robots,
    RobotsCache,
)


def rules(body: str) -> Robots:
    """Return the rules of http://a.test."""
    robots = Robots("http://a.test", 1)
    robots.take(body, 1000.0)
    if robots.state == UNREAD:
        robots.read()
    return robots


def test_nothing_is_allowed_before_the_rules_are_known() -> None:
    assert not Robots("http://a.test", 1).allows("http://a.test/")


@pytest.mark.parametrize(
    ("body", "path", "is_allowed"),
    [
        ("", "/x", True),
        ("User-agent: *\nDisallow:", "/x", True),
        ("User-agent: *\nDisallow: /", "/x", False),
        ("User-agent: *\nDisallow: /\n\nUser-agent: Rabbitry\nAllow: /", "/x", True),
        ("User-agent: rabbitry\nDisallow: /a\nAllow: /a/b", "/a/b/c", True),
        ("User-agent: rabbitry\nDisallow: /a\nAllow: /a/b", "/a/c", False),
        ("User-agent: *\nDisallow: /*.pdf$", "/x/y.pdf", False),
        ("User-agent: *\nDisallow: /*.pdf$", "/x/y.pdf.html", True),
        ("\ufeffUser-agent: *\nDisallow: /x", "/x", False),
        ("user-AGENT: *\r\nDISALLOW: /x\r\n", "/x", False),
        ("User-agent: other\nDisallow: /", "/x", True),
        ("<html>not found</html>", "/x", True),
        ("User-agent: *\rDisallow: /x\r\rUser-agent: other\rDisallow: /", "/y", True),
        ("User-agent: *\r\rDisallow: /x\rAllow: /x/y", "/x", False),
        ("User-agent: Rabbitry/1.0\nDisallow: /x\n\nUser-agent: *\nDisallow: /", "/y", True),
        ("User-agent: rabbitry (all of it) # ours\nDisallow: /x", "/x", False),
        ("User-agent: rabbit\nDisallow: /", "/x", True),
        ("User-agent: r\nDisallow: /\n\nUser-agent: *\nDisallow: /y", "/x", True),
        ("User-agent: rabbitry-news\nDisallow: /", "/x", True),
        ("User-agent: a\nUser-agent: RABBITRY\nUser-agent: b\nDisallow: /x", "/x", False),
        ("User-agent: rabbitry\nDisallow: /x\n\nUser-agent: rabbitry/2\nDisallow: /y", "/x", False),
        ("User-agent: rabbitry\nDisallow: /x\n\nUser-agent: rabbitry/2\nDisallow: /y", "/y", False),
        ("User-agent: *bot\nDisallow: /", "/x", True),
        ("User-agent: * # all\nDisallow: /x", "/x", False),
        ("User-agent: *\nDisalow: /x", "/x", False),
        ("Disallow: /x", "/x", True),
        ("User-agent: *\nDisallow: /caf\u00e9", "/caf%C3%A9", False),
        ("User-agent: *\nDisallow: /a%2Fb", "/a/b", True),
    ],
)
def test_the_longest_rule_of_our_group_decides(body: str, path: str, is_allowed: bool) -> None:
    assert rules(body).allows(f"http://a.test{path}") is is_allowed


@pytest.mark.parametrize(
    ("text", "delay"), [("7", 7.0), ("0.5", 0.5), ("86400", 86400.0), ("x", 0.0), ("-3", 0.0), ("1e99", 2592000.0)]
)
def test_a_crawl_delay_may_have_any_length(text: str, delay: float) -> None:
    assert rules(f"User-agent: *\nCrawl-delay: {text}\nDisallow: /x").delay == delay


def test_rules_are_kept_for_a_day() -> None:
    assert rules("User-agent: *\nDisallow: /x").until == 1000.0 + KEPT == 1000.0 + 24 * 3600


def test_sitemaps_are_absolute_and_bounded() -> None:
    lines = "".join(f"Sitemap: /s{number}.xml\n" for number in range(500))
    found = rules(lines + "Sitemap: https://b.test/x.xml\n").sitemaps()
    assert len(found) == MOST_SITEMAPS
    assert found[0] == "http://a.test/s0.xml"


def test_sitemaps_are_found_in_each_spelling() -> None:
    lines = "Sitemap: /a.xml\rsitemaps:/b.xml # the rest\r\n site-map : /c.xml\nSITEMAP /d.xml\n"
    none = "sitemap:\nSitemap:   # none\nsitemap\nmysitemap: /x.xml\n#Sitemap: /x.xml\nUser-agent: sitemap: /x.xml\n"
    assert rules(lines + none).sitemaps() == [f"http://a.test/{letter}.xml" for letter in "abcd"]


def test_a_long_or_hostile_robots_txt_is_read_in_bounded_time() -> None:
    long = "User-agent: *\n" + "Disallow: /x\n" * 100_000
    assert len(rules(long).body) == LARGEST
    assert rules("sitemap" + " \t" * 200_000 + "#\n" + "site" * 10_000).sitemaps() == []
    hostile = rules("User-agent: *\nDisallow: /" + "*a" * 2_000 + "b\n")
    assert hostile.allows("http://a.test/" + "a" * 1_900)  # a regular expression that backtracks would never end


@pytest.mark.parametrize("end", ["\n", "\r", "\r\n"])
def test_an_incomplete_rule_at_the_cut_of_a_robots_txt_is_ignored(end: str) -> None:
    head = f"User-agent: *{end}Disallow: /x{end}"
    filled = head + "#" * (LARGEST - len(head) - len(end) - 11) + end
    cut = rules(f"{filled}Disallow: /y{end}")  # after its first slash
    assert cut.body.endswith("Disallow: /")
    assert not cut.allows("http://a.test/x")
    assert cut.allows("http://a.test/z")


def test_too_many_wildcards_forbid_all() -> None:
    most = "User-agent: *\n" + "Disallow: /*$\n" * (MOST_WILDCARDS - 1)
    assert not rules(most).allows("http://a.test/page")
    assert rules(most.replace("/*$", "/*q")).allows("http://a.test/page")
    too_many = rules(most.replace("/*$", "/*q") + "Disallow: /*z\n")
    assert not too_many.allows("http://a.test/page")
    assert "wildcards" in too_many.detail
    assert not Robots("http://a.test", 1, too_many.state, body=too_many.body).allows("http://a.test/page")


def test_stars_in_comments_are_no_wildcards() -> None:
    frame = f"# {'*' * 70}\n" * 200
    assert rules(f"{frame}User-agent: *\nDisallow: /p\n").allows("http://a.test/q")


def test_the_cache_also_bounds_bytes_added_later() -> None:
    cache = RobotsCache()
    for number in range(100):
        robots = Robots(f"http://h{number}.test", number)
        cache.put(robots)
        robots.take("Disallow: /x\n" * 100_000, 1000.0)
    kept = [found for number in range(100) if (found := cache.get(f"http://h{number}.test"))]
    assert LARGEST_CACHED // 2 < sum(len(robots.body) for robots in kept) <= LARGEST_CACHED + LARGEST
    assert kept[-1].origin == "http://h99.test"


def test_the_cache_is_bounded() -> None:
    cache = RobotsCache()
    for number in range(2_000):
        cache.put(Robots(f"http://h{number}.test", number))
    assert cache.get("http://h0.test") is None
    assert cache.get("http://h1999.test") is not None
