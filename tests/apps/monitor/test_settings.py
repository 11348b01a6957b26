"""Settings from the environment and `.env`."""

import logging
from pathlib import Path

import pytest

from rabbitry.apps.monitor.settings import Settings, from_environment
from rabbitry.apps.settings import broker_url, variables
from rabbitry.exceptions import UsageError


@pytest.fixture
def env_file(tmp_path: Path) -> Path:
    return tmp_path / ".env"


def test_defaults_are_those_of_the_contract() -> None:
    settings = from_environment({}, default_port=8000)
    assert settings == Settings(port=8000)
    assert settings.broker == "amqp://guest:guest@127.0.0.1:5672/"
    assert (settings.exchange, settings.queue, settings.host) == ("system_info", "Consumer", "127.0.0.1")


def test_all_keys_of_a_file_are_read(env_file: Path) -> None:
    env_file.write_text(
        "# the broker\nRABBITMQ_HOST=mq.example\nexport RABBITMQ_PORT=5673\nRABBITMQ_USER='al ice'\n"
        'RABBITMQ_PASSWORD="p@ss/word"  # quoted\nRABBITMQ_VHOST=/lab\nEXCHANGE_NAME=info\nQUEUE_NAME=page\n'
        "APP_HOST=::1\nAPP_PORT=9000\nAPP_PASSWORD=secret\n\n"
    )
    settings = from_environment(variables(env_file, {}), default_port=8000)
    assert settings.broker == "amqp://al%20ice:p%40ss%2Fword@mq.example:5673/%2Flab"
    assert (settings.exchange, settings.queue) == ("info", "page")
    assert (settings.host, settings.port, settings.password) == ("::1", 9000, "secret")
    assert "secret" not in repr(settings)
    assert "p%40" not in repr(settings)


def test_the_environment_goes_before_the_file(env_file: Path) -> None:
    env_file.write_text("RABBITMQ_HOST=from-file\nEXCHANGE_NAME=from-file\n")
    found = variables(env_file, {"RABBITMQ_HOST": "from-environment", "EXCHANGE_NAME": "", "HOME": "/x"})
    assert found == {"RABBITMQ_HOST": "from-environment", "EXCHANGE_NAME": "from-file"}


def test_a_url_of_the_file_yields_to_a_host_of_the_environment(env_file: Path) -> None:
    env_file.write_text("RABBITRY_BROKER=amqp://from-file\n")
    assert broker_url(variables(env_file, {})) == "amqp://from-file"
    found = variables(env_file, {"RABBITMQ_HOST": "from-environment"})
    assert broker_url(found) == "amqp://guest:guest@from-environment:5672/%2F"


def test_without_any_of_them_no_broker_is_named() -> None:
    assert broker_url({"EXCHANGE_NAME": "x"}) is None


def test_an_address_with_colons_is_put_into_brackets() -> None:
    assert broker_url({"RABBITMQ_HOST": "::1"}) == "amqp://guest:guest@[::1]:5672/%2F"


def test_a_file_that_can_t_be_looked_up_is_not_taken_for_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert variables(None, {}) == {}
    Path(".env").symlink_to(".env")
    with pytest.raises(UsageError, match=r"\.env can't be read"):
        variables(None, {})


def test_an_unknown_key_is_reported_with_a_suggestion(env_file: Path, caplog: pytest.LogCaptureFixture) -> None:
    env_file.write_text("RABBITMQ_PROT=5673\nDATABASE=x\n")
    with caplog.at_level(logging.WARNING):
        assert variables(env_file, {}) == {}
    assert "RABBITMQ_PROT" in caplog.messages[0]
    assert "RABBITMQ_PORT" in caplog.messages[0]
    assert "DATABASE" in caplog.messages[1]


@pytest.mark.parametrize(
    ("text", "line", "named"),
    [
        ("APP_PORT=1\n\nno assignment here\n", 3, "no assignment here"),
        ("RABBITMQ_PASSWORD='never closed\n", 1, "RABBITMQ_PASSWORD"),
        ("APP_PORT\n", 1, "APP_PORT"),
        ("=5\n", 1, "''"),
        ("# one\n\n\nexport APP_PORT # two\n", 4, "export APP_PORT"),
        ("APP_PORT=1\nAPP_HOST\nno assignment\n", 2, "APP_HOST"),
        ("QUEUE_NAME='a\nb'\nAPP_PORT=1 \nAPP HOST=2", 4, "APP HOST"),
    ],
)
def test_a_malformed_line_is_named_without_its_value(env_file: Path, text: str, line: int, named: str) -> None:
    env_file.write_text(text)
    with pytest.raises(UsageError) as caught:
        variables(env_file, {})
    assert f"line {line}" in str(caught.value)
    assert named in str(caught.value)
    assert "never closed" not in str(caught.value)


def test_a_malformed_line_is_an_error_whatever_is_logged(env_file: Path, caplog: pytest.LogCaptureFixture) -> None:
    env_file.write_text("not an assignment\n")
    logger = logging.getLogger("dotenv")
    with caplog.at_level(logging.CRITICAL), pytest.raises(UsageError, match="line 1"):
        variables(env_file, {})
    assert caplog.records == []
    assert (logger.level, logger.propagate, logger.handlers) == (logging.NOTSET, True, [])


@pytest.mark.parametrize("port", ["http", "-1", "70000", "5672 ", "٣"])
def test_a_malformed_port_is_refused(port: str) -> None:
    with pytest.raises(UsageError, match="APP_PORT"):
        from_environment({"APP_PORT": port}, default_port=8000)
    with pytest.raises(UsageError, match="RABBITMQ_PORT"):
        broker_url({"RABBITMQ_PORT": port})


def test_a_named_env_file_must_exist(env_file: Path) -> None:
    with pytest.raises(UsageError, match=r"\.env"):
        variables(env_file, {})
    env_file.write_bytes(b"\xff")
    with pytest.raises(UsageError, match=r"\.env"):
        variables(env_file, {})


def test_the_file_of_the_working_directory_may_be_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert variables(None, {}) == {}
    (tmp_path / ".env").write_text("QUEUE_NAME=here\n")
    assert variables(None, {}) == {"QUEUE_NAME": "here"}


def test_other_machines_are_served_only_with_a_password() -> None:
    with pytest.raises(UsageError, match="APP_PASSWORD"):
        from_environment({"APP_HOST": "0.0.0.0"}, default_port=8000)
    assert from_environment({"APP_HOST": "0.0.0.0", "APP_PASSWORD": "x"}, default_port=8000).host == "0.0.0.0"


@pytest.mark.parametrize("program", ["publisher", "consumer"])
def test_the_examples_of_the_repository_are_valid_and_complete(program: str, caplog: pytest.LogCaptureFixture) -> None:
    example = Path(__file__).parents[3] / "examples" / program / ".env.example"
    with caplog.at_level(logging.WARNING):
        settings = from_environment(variables(example, {}), default_port=1)
    assert caplog.messages == []
    assert settings.port == {"publisher": 8000, "consumer": 8003}[program]
    assert settings.broker.startswith("amqp://guest:guest@127.0.0.1:5672/")
