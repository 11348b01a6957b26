"""The broker for other languages' tests: `python -m rabbitry.testing`."""

import json
import signal
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pika
import pytest


@contextmanager
def _running(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "rabbitry.testing", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_prints_its_url_and_runs_until_a_signal(number: signal.Signals) -> None:
    with _running() as process:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        with pika.BlockingConnection(pika.URLParameters(url)) as connection:
            connection.channel().queue_declare("tasks")
        process.send_signal(number)
        assert process.communicate(timeout=60) == ("", "")
        assert process.returncode == 0


def test_json_names_all_requested_addresses(tmp_path: Path) -> None:
    definitions = tmp_path / "definitions.json"
    definitions.write_text(
        '{"queues": [{"name": "paid", "vhost": "shop", "durable": true, "auto_delete": false, "arguments": {}}]}'
    )
    options = (
        "--json",
        "--tls",
        "--management",
        "--vhost",
        "shop",
        "--definitions",
        str(definitions),
        "--compat",
        "4.0",
    )
    with _running(*options, "--data", str(tmp_path / "data")) as process:
        assert process.stdout is not None
        found = json.loads(process.stdout.readline())
        assert list(found) == ["url", "tls_url", "ca_file", "management_url"]
        parameters = pika.URLParameters(found["tls_url"])
        parameters.ssl_options = pika.SSLOptions(ssl.create_default_context(cafile=found["ca_file"]), "localhost")
        with pika.BlockingConnection(parameters) as connection:
            connection.channel().queue_declare("paid", passive=True)
        overview = httpx.get(f"{found['management_url']}api/overview", auth=("guest", "guest"), timeout=60)
        assert overview.json()["product_version"] == "4.0.5"
        process.terminate()
        process.wait(60)
    assert not Path(found["ca_file"]).exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(("--port", "70000"), "port=70000 is out of range"), (("--definitions", "missing.json"), "missing.json")],
)
def test_a_wrong_option_gets_one_line(arguments: tuple[str, ...], message: str) -> None:
    with _running(*arguments) as process:
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err.count("\n")) == (1, "", 1)
    assert message in err
