"""Broker URLs: RabbitMQ's URI specification, several hosts, and errors that keep the password."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rabbitry.amqp.client.url import DEFAULT_URL, BrokerURL, parse_url
from rabbitry.exceptions import UsageError

_LOCAL = "127.0.0.1"


def _url(user: str, password: str, host: str, port: int, virtual_host: str) -> BrokerURL:
    return BrokerURL(((host, port),), user=user, password=password, virtual_host=virtual_host)


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        # The examples of RabbitMQ's URI specification, appendix A. What it leaves to the client is Rabbitry's default;
        # a path of "/" alone is the default virtual host here.
        ("amqp://user:pass@host:10000/vhost", _url("user", "pass", "host", 10000, "vhost")),
        ("amqp://user%61:%61pass@ho%61st:10000/v%2fhost", _url("usera", "apass", "hoast", 10000, "v/host")),
        ("amqp://", _url("guest", "guest", _LOCAL, 5672, "/")),
        ("amqp://:@/", _url("", "", _LOCAL, 5672, "/")),
        ("amqp://user@", _url("user", "guest", _LOCAL, 5672, "/")),
        ("amqp://user:pass@", _url("user", "pass", _LOCAL, 5672, "/")),
        ("amqp://host", _url("guest", "guest", "host", 5672, "/")),
        ("amqp://:10000", _url("guest", "guest", _LOCAL, 10000, "/")),
        ("amqp:///vhost", _url("guest", "guest", _LOCAL, 5672, "vhost")),
        ("amqp://host/", _url("guest", "guest", "host", 5672, "/")),
        ("amqp://host/%2f", _url("guest", "guest", "host", 5672, "/")),
        ("amqp://[::1]", _url("guest", "guest", "::1", 5672, "/")),
        # More.
        ("amqp://[::1]:10000/vhost", _url("guest", "guest", "::1", 10000, "vhost")),
        ("AMQP://host", _url("guest", "guest", "host", 5672, "/")),
        ("amqp://u:p@ss@host", _url("u", "p@ss", "host", 5672, "/")),
        ("amqp://u:p%40%2F%3F%3A@host", _url("u", "p@/?:", "host", 5672, "/")),
        ("amqp://u:p:q@host", _url("u", "p:q", "host", 5672, "/")),
    ],
)
def test_urls_are_parsed(text: str, parsed: BrokerURL) -> None:
    assert parse_url(text) == parsed


def test_tls_has_a_port_of_its_own() -> None:
    assert parse_url("amqps://host") == BrokerURL((("host", 5671),), tls=True)


@pytest.mark.parametrize("text", ["amqp://a,b:1,[::1]:2/v", "amqp://a/v,b:1,[::1]:2"])
def test_several_hosts_follow_the_first_or_the_virtual_host(text: str) -> None:
    assert parse_url(text) == BrokerURL((("a", 5672), ("b", 1), ("::1", 2)), virtual_host="v")


def test_query_parameters() -> None:
    parsed = parse_url("amqp://host?heartbeat=5&connection_timeout=10000&channel_max=7&frame_max=8192")
    assert parsed == BrokerURL((("host", 5672),), heartbeat=5, connection_timeout=10.0, channel_max=7, frame_max=8192)


def test_without_a_url_it_is_the_environments_then_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RABBITRY_BROKER", raising=False)
    assert parse_url() == parse_url(DEFAULT_URL) == BrokerURL(((_LOCAL, 5672),))
    monkeypatch.setenv("RABBITRY_BROKER", "amqp://elsewhere")
    assert parse_url().hosts == (("elsewhere", 5672),)
    assert parse_url("amqp://here").hosts == (("here", 5672),)


@pytest.mark.parametrize("text", ["amqp://a:5672/", "amqps://a:5671,[::1]:2/v%2Fw", "amqp://a:1/%40", "amqp://a:1/%2C"])
def test_the_text_of_a_url_parses_to_the_same(text: str) -> None:
    assert str(parse_url(text)) == text
    assert parse_url(str(parse_url(text))) == parse_url(text)


def test_the_password_is_in_no_representation() -> None:
    parsed = parse_url("amqp://user:hunter2@host")
    assert "hunter2" not in f"{parsed} {parsed!r}"
    assert "user" not in str(parsed)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "must begin with amqp://"), ("host", "must begin with amqp://"), ("http://host", "must begin with amqp://"),
        ("amqp://host:x", "port"), ("amqp://host:0", "port"), ("amqp://host:65536", "port"),
        ("amqp://host:5672:1", "port"), ("amqp://host:１", "port"), ("amqp://::1", "port"),
        (f"amqp://host:{'9' * 5000}", "port"), ("amqp://[::1", "IPv6"), ("amqp://[::1]5672", "IPv6"),
        (f"amqp://{'a' * 64}", "host name"), ("amqp://a..b", "host name"), ("amqp://%00", "host name"),
        ("amqp://\ud800", "host name"),
        ("amqp://host?heartbeat=x", "heartbeat"), ("amqp://host?heartbeat=-1", "heartbeat"),
        ("amqp://host?heartbeat=65536", "heartbeat"), ("amqp://host?heartbeat=", "heartbeat"),
        ("amqp://host?frame_max=4294967296", "frame_max"), ("amqp://host?heartbaet=5", "unknown query parameter"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said(text: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        parse_url(text)


@pytest.mark.parametrize(
    "text",
    [
        "amqp://user:hunter2@host:hunter2", "amqp://user:hunter2@host?hunter2=1", "amqp://user:hunter2@host?heartbeat=x",
        "amqp://user:hunter2/x@host", "amqp://user:hunter2?x@host", "amqp://user:12/hunter2@host",
        "amqp://user:12?hunter2@host", "amqp://user:12?hunter2=1@host",
        "amqp://user:hunter2@[host", "user:hunter2@host",
        "amqp://user:hunter2/x", "amqp://user:hunter2?x",
    ],
)  # fmt: skip
def test_errors_keep_the_password(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_url(text)
    error: BaseException | None = caught.value
    while error is not None:
        assert "hunter2" not in str(error)
        error = error.__cause__ or error.__context__


@given(st.text())
def test_any_text_is_a_url_or_a_usage_error(text: str) -> None:
    for url in (text, "amqp://" + text):
        try:
            parsed = parse_url(url)
        except UsageError:
            continue
        assert parsed.hosts
