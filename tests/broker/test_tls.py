"""TLS on a separate port, and logins by certificate (EXTERNAL)."""

import socket
import ssl
from pathlib import Path
from urllib.parse import quote

import pytest
import trustme

import rabbitry
from rabbitry.broker import Broker, BrokerConfig
from rabbitry.broker.access import Permission
from rabbitry.exceptions import ConnectFailed, LoginRefused
from tests.support import commands


class Files:
    """A server's and a client's certificates, and the authority that signed them."""

    def __init__(self, folder: Path) -> None:
        authority = trustme.CA()
        server, client = authority.issue_cert("localhost"), authority.issue_cert("ann@example.org", common_name="ann")
        self.authority, self.server, self.client = (str(folder / name) for name in ("ca.pem", "server.pem", "c.pem"))
        authority.cert_pem.write_to_path(self.authority)
        server.private_key_and_cert_chain_pem.write_to_path(self.server)
        client.private_key_and_cert_chain_pem.write_to_path(self.client)

    def context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.server)
        context.load_verify_locations(self.authority)
        context.verify_mode = ssl.CERT_OPTIONAL
        return context

    def url(self, port: int, **parameters: str) -> str:
        known = {"cacertfile": self.authority} | parameters
        query = "&".join(f"{name}={quote(value, safe='')}" for name, value in known.items() if value)
        return f"amqps://guest:guest@localhost:{port}/?{query}"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return Files(tmp_path_factory.mktemp("tls"))


async def test_tls_beside_the_plain_port(files: Files) -> None:
    async with Broker(BrokerConfig(port=0, tls=files.context(), tls_port=0)) as broker:
        async with rabbitry.connect(files.url(broker.tls_port)) as connection, await connection.channel() as channel:
            await channel.declare_queue("q")
            await channel.publish(bytes(300_000), routing_key="q")
            delivery = await channel.get("q")
            assert delivery is not None
            assert len(delivery.body) == 300_000
        async with rabbitry.connect(broker.url) as plain:
            assert plain.is_open
        with pytest.raises(ConnectFailed):
            await rabbitry.connect(files.url(broker.port), timeout=5)
        with pytest.raises(ConnectFailed):
            await rabbitry.connect(f"amqps://localhost:{broker.tls_port}/", timeout=5)  # unknown authority


async def test_a_certificate_logs_in_as_the_user_of_its_name(files: Files) -> None:
    # ssl's own words for the subject are the reference: trustme sets organisation, unit and common name.
    subject = ssl._ssl._test_decode_cert(files.client)["subject"]  # type: ignore[attr-defined] # no public reader
    short = {"commonName": "CN", "organizationName": "O", "organizationalUnitName": "OU"}
    name = ",".join(reversed([f"{short[key]}={value}" for group in subject for key, value in group]))
    assert name.startswith("CN=ann,")
    external = {"certfile": files.client, "auth_mechanism": "external"}
    async with Broker(BrokerConfig(port=0, tls=files.context(), tls_port=0)) as broker:
        with pytest.raises(LoginRefused):
            await rabbitry.connect(files.url(broker.tls_port, **external))
        broker.access.put_user(name, "")
        broker.access.put_permission("/", name, Permission())
        async with rabbitry.connect(files.url(broker.tls_port, **external)) as connection:
            assert (await connection.channel()).is_open
            assert [known.user for known in broker.connections] == [name]
        with pytest.raises((LoginRefused, ConnectFailed)):
            await rabbitry.connect(files.url(broker.tls_port, auth_mechanism="external"))  # shows no certificate


async def test_the_command_listens_for_tls(files: Files) -> None:
    options = ("--port", "0", "--memory", "--no-management", "--tls-port", "0")
    with commands.service("broker", *options, "--tls-cert", files.server, "--tls-ca", files.authority) as broker:
        port = int(broker.wait_for(r"TLS on amqps://127\.0\.0\.1:(\d+)/")[1])
        async with rabbitry.connect(files.url(port, certfile=files.client)) as connection:
            assert connection.is_open
    done = commands.run("broker", *options, "--tls-cert", files.authority)
    assert done.returncode == 2
    assert f"--tls-cert '{files.authority}' holds a certificate and no private key: give its key with" in done.stderr
    done = commands.run("broker", *options, "--tls-cert", files.server, "--tls-ca", "/missing")
    assert done.returncode == 2
    assert "--tls-ca '/missing' can't be read: No such file" in done.stderr
    assert commands.run("broker", *options, "--tls-ca", files.authority).returncode == 2
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = commands.run("broker", *options[:-1], str(port), "--tls-cert", files.server)
        assert done.returncode == 2
        assert f"port {port} is taken" in done.stderr
