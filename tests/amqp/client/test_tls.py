"""TLS against RabbitMQ: trust, host names, client certificates, and logging in with one."""

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import pytest
import trustme

import rabbitry
from rabbitry.amqp.client import parse_url
from rabbitry.exceptions import ConnectFailed, LoginRefused, UsageError
from tests.support import programs, rabbitmq
from tests.support.ports import free_port
from tests.support.rabbitmq import RabbitMQ


@dataclass
class Secured:
    """A RabbitMQ with TLS, and the files that a client needs."""

    port: int
    authority: Path
    client: Path
    server: RabbitMQ

    def url(self, host: str = "localhost", **parameters: str) -> str:
        """The URL with the authority's file and the given parameters."""
        known = {"cacertfile": str(self.authority)} | parameters
        query = "&".join(f"{key}={quote(value, safe='')}" for key, value in known.items() if value)
        return f"amqps://guest:guest@{host}:{self.port}/?{query}"


@pytest.fixture(scope="module")
def secured() -> Iterator[Secured]:
    programs.require(rabbitmq.why_missing())
    with tempfile.TemporaryDirectory(prefix="rabbitry-tls-", dir=rabbitmq.ROOT / "tmp") as folder:
        yield from _secured(Path(folder))


def _secured(folder: Path) -> Iterator[Secured]:
    folder.chmod(0o755)
    seen = RabbitMQ.own_view(folder)
    authority = trustme.CA()
    certificate = authority.issue_cert("localhost")
    client = authority.issue_cert("rabbitry-client@example.org", common_name="rabbitry-client")
    authority.cert_pem.write_to_path(folder / "ca.pem")
    certificate.cert_chain_pems[0].write_to_path(folder / "server.pem")
    certificate.private_key_pem.write_to_path(folder / "server.key")
    client.private_key_and_cert_chain_pem.write_to_path(folder / "client.pem")
    port = free_port()
    settings = [
        f"listeners.ssl.1 = 127.0.0.1:{port}",
        f"ssl_options.cacertfile = {seen}/ca.pem",
        f"ssl_options.certfile = {seen}/server.pem",
        f"ssl_options.keyfile = {seen}/server.key",
        "ssl_options.verify = verify_peer",
        "ssl_options.fail_if_no_peer_cert = false",
        "auth_mechanisms.1 = PLAIN",
        "auth_mechanisms.2 = EXTERNAL",
        "ssl_cert_login_from = common_name",
    ]
    with RabbitMQ(is_thrifty=True, settings=settings, plugins=["rabbitmq_auth_mechanism_ssl"]) as server:
        yield Secured(port, folder / "ca.pem", folder / "client.pem", server)


async def test_a_trusted_broker_is_used_over_tls(secured: Secured, no_leaks: None) -> None:
    async with rabbitry.connect(secured.url()) as connection:
        assert connection._session.link is not None
        assert connection._session.link.driver.get_extra_info("ssl_object") is not None
        channel = await connection.channel()
        queue = (await channel.declare_queue(exclusive=True)).name
        body = b"x" * (1 << 20)
        await channel.publish(body, routing_key=queue)
        delivery = await channel.get(queue)
        assert delivery is not None
        assert delivery.body == body


async def test_an_untrusted_broker_is_refused(secured: Secured) -> None:
    with pytest.raises(ConnectFailed, match="not trusted"):
        await rabbitry.connect(secured.url(cacertfile=""))


async def test_a_certificate_for_another_name_is_refused(secured: Secured) -> None:
    with pytest.raises(ConnectFailed, match=r"not trusted.*127\.0\.0\.1"):
        await rabbitry.connect(secured.url("127.0.0.1"))
    async with rabbitry.connect(secured.url("127.0.0.1", server_name_indication="localhost")) as connection:
        assert connection.is_open


async def test_verify_none_accepts_any_certificate(secured: Secured) -> None:
    async with rabbitry.connect(secured.url("127.0.0.1", cacertfile="", verify="verify_none")) as connection:
        assert connection.is_open


async def test_a_client_logs_in_with_its_certificate(secured: Secured) -> None:
    with pytest.raises(LoginRefused):
        await rabbitry.connect(secured.url(certfile=str(secured.client), auth_mechanism="external"))
    secured.server.add_user("rabbitry-client", "unused")
    secured.server.set_permissions("rabbitry-client")
    async with rabbitry.connect(secured.url(certfile=str(secured.client), auth_mechanism="external")) as connection:
        assert connection.is_open


async def test_a_port_without_tls_is_named(secured: Secured) -> None:
    plain = secured.server.port
    with pytest.raises(ConnectFailed, match=f"{plain}"):
        await rabbitry.connect(f"amqps://localhost:{plain}/", timeout=2)


@pytest.mark.parametrize("key", ["cacertfile", "certfile"])
async def test_files_that_cannot_be_read_are_named(tmp_path: Path, key: str) -> None:
    missing = tmp_path / "missing.pem"
    with pytest.raises(UsageError, match=r"missing\.pem"):
        await rabbitry.connect(f"amqps://localhost:1/?{key}={missing}")


@pytest.mark.parametrize(
    "query", ["cacertfile=", "verify=maybe", "auth_mechanism=kerberos", "verify=verify_none&nonsense=1"]
)
def test_invalid_query_parameters_are_named(query: str) -> None:
    with pytest.raises(
        UsageError, match=query.rpartition("&")[2].partition("=")[0] if "nonsense" not in query else "unknown"
    ):
        parse_url(f"amqps://localhost/?{query}")


def test_certificates_need_amqps() -> None:
    with pytest.raises(UsageError, match="amqps"):
        parse_url("amqp://localhost/?verify=verify_none")
