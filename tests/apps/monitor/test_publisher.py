"""The HTTP service of contract `system_info`, beside the agent and on its own under uvicorn."""

import json
import re
import socket
from pathlib import Path
from typing import Any

import httpx

from rabbitry.amqp.client import parse_url
from tests.apps.monitor.program import Program
from tests.apps.monitor.test_agent import consuming
from tests.support.ports import free_port
from tests.support.waiting import eventually_blocking


def settings(url: str) -> dict[str, str]:
    """The variables of the contract for a broker."""
    parsed = parse_url(url)
    [(host, port)] = parsed.hosts
    return {
        "RABBITMQ_HOST": host,
        "RABBITMQ_PORT": str(port),
        "RABBITMQ_USER": parsed.user,
        "RABBITMQ_PASSWORD": parsed.password,
        "RABBITMQ_VHOST": parsed.virtual_host,
    }


def connected(client: httpx.Client) -> bool:
    try:
        return client.get("/healthz").status_code == 200
    except httpx.TransportError:
        return False


def test_uvicorn_starts_it_and_publish_answers_with_the_sample(broker_url: str, tmp_path: Path) -> None:
    port = free_port()
    uvicorn = ["rabbitry.apps.monitor.publisher:app", "--port", str(port)]
    with (
        httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=90) as client,
        Program(tmp_path, *uvicorn, module="uvicorn", EXCHANGE_NAME="my_info", **settings(broker_url)) as service,
    ):
        eventually_blocking(lambda: connected(client), f"connected: {service!r}")
        for method in ("GET", "POST"):
            unheard = client.request(method, "/publish")
            assert unheard.status_code == 503
            assert unheard.json()["status"] == "unheard"
            assert "my_info" in unheard.json()["message"]
            assert unheard.json()["data"]["cpu"] >= 0
        with consuming(broker_url, "my_info", "fanout", "") as consumer:
            for method in ("GET", "POST"):
                answer = client.request(method, "/publish")
                assert answer.status_code == 200
                assert set(answer.json()) == {"status", "message", "data"}
                assert answer.json()["status"] == "success"
                _, properties, body = consumer.next()
                assert json.loads(body) == answer.json()["data"]
                assert properties.delivery_mode == 2
        assert service.end() == 0


def test_beside_the_agent_it_prints_its_address_and_shares_the_connection(broker_url: str, tmp_path: Path) -> None:
    with (
        consuming(broker_url, "system_info", "fanout", "") as consumer,
        Program(tmp_path, "monitor", "publish", "--to", "utilization", "--http", "0", url=broker_url) as agent,
    ):
        found = agent.wait_for(r"serving (http://127\.0\.0\.1:\d+)/publish")
        with httpx.Client(base_url=found[1], timeout=90) as client:
            eventually_blocking(lambda: connected(client), "connected")
            answer = client.get("/publish")
            assert answer.json()["status"] == "success"
            assert json.loads(consumer.next()[2]) == answer.json()["data"]
            for host in ("localhost", "127.0.0.1:80", "[::1]:9"):
                assert client.get("/healthz", headers={"Host": host}).status_code == 200
            for host in ("evil.example", "localhost.evil.example", ""):
                assert client.get("/publish", headers={"Host": host}).status_code in (400, 421)
            assert client.get("/docs").status_code == 404
        assert agent.end() == 0
    assert "Traceback" not in agent.err


def test_publish_has_no_effect_as_head_and_none_for_another_site_s_page(broker_url: str, tmp_path: Path) -> None:
    with (
        consuming(broker_url, "system_info", "fanout", "") as consumer,
        Program(tmp_path, "monitor", "publish", "--to", "utilization", "--http", "0", url=broker_url) as agent,
    ):
        found = agent.wait_for(r"serving (http://127\.0\.0\.1:\d+)/publish")
        with httpx.Client(base_url=found[1], timeout=90) as client:
            eventually_blocking(lambda: connected(client), "connected")
            for method in ("GET", "POST"):
                for headers in ({"Sec-Fetch-Site": "cross-site"}, {"Origin": "http://evil.example"}):
                    assert client.request(method, "/publish", headers=headers).status_code == 403
            assert client.get("/publish", headers={"Referer": "http://evil.example/"}).status_code == 403
            head = client.head("/publish")
            assert (head.status_code, head.content) == (200, b"")
            typed = client.get("/publish", headers={"Sec-Fetch-Site": "none"})
            # The first message is that of the last request: earlier requests published nothing.
            assert json.loads(consumer.next()[2]) == typed.json()["data"]


def test_while_the_broker_is_away_it_answers_with_the_sample(tmp_path: Path) -> None:
    nowhere = f"amqp://127.0.0.1:{free_port()}"
    with Program(tmp_path, "monitor", "publish", "--http", "0", url=nowhere) as agent:
        found = agent.wait_for(r"serving (http://127\.0\.0\.1:\d+)/publish")
        with httpx.Client(base_url=found[1], timeout=90) as client:
            agent.wait_for("trying again in 2 s")
            answer = client.get("/publish")
            assert answer.status_code == 503
            assert answer.json()["status"] == "failed"
            assert "no broker at" in answer.json()["message"]
            assert answer.json()["data"]["hostname"]
            health = client.get("/healthz")
            assert health.status_code == 503
            assert health.json()["broker"] == "away"
        assert agent.end() == 0


def test_alone_it_stays_up_with_a_refused_login_and_reports_it(broker_url: str, tmp_path: Path) -> None:
    port = free_port()
    variables = settings(broker_url) | {"RABBITMQ_PASSWORD": "not-the-one"}
    uvicorn = ["rabbitry.apps.monitor.publisher:app", "--port", str(port)]
    with (
        httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=90) as client,
        Program(tmp_path, *uvicorn, module="uvicorn", **variables) as service,
    ):
        service.wait_for("refused the login")
        service.wait_for("Uvicorn running on")  # the start-up is complete before the port listens
        answer: dict[str, Any] = client.get("/publish").json()
        assert answer["status"] == "failed"
        assert "refused the login" in answer["message"]
        assert "not-the-one" not in service.err + json.dumps(answer)
        assert service.end() == 0


def test_a_password_opens_it_to_other_machines(broker_url: str, tmp_path: Path) -> None:
    options = ["monitor", "publish", "--http", "0"]
    with Program(tmp_path, *options, url=broker_url, APP_HOST="0.0.0.0") as agent:
        assert agent.wait() == 2
        assert re.fullmatch(r"rabbitry: .*0\.0\.0\.0.*APP_PASSWORD.*\n", agent.err)
    with Program(tmp_path, *options, url=broker_url, APP_HOST="0.0.0.0", APP_PASSWORD="open sesame") as agent:
        found = agent.wait_for(r"serving http://0\.0\.0\.0:(\d+)/publish")
        base = f"http://127.0.0.1:{found[1]}"  # without a client that would keep the cookie of a login

        def status(path: str, auth: tuple[str, str] | None = None) -> int:
            return httpx.get(f"{base}/{path}", auth=auth, timeout=90).status_code

        eventually_blocking(lambda: status("healthz", ("me", "open sesame")) == 200, "connected")
        assert status("publish") == 401
        assert status("publish", ("me", "wrong")) == 401
        assert agent.end() == 0


def test_a_taken_port_is_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with Program(tmp_path, "monitor", "publish", "--http", str(port), url="amqp://127.0.0.1:1") as agent:
            assert agent.wait() == 2
            assert re.fullmatch(rf"rabbitry: port {port} is taken.*\n", agent.err)
