"""TLS against a real listener that asks for a client certificate: verified by default, with errors that say what is wrong."""

import gc
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest
import trustme

from rmqjobs import Settings
from rmqjobs.amqp.connection import connect
from rmqjobs.amqp.reviewing import desk
from rmqjobs.errors import BrokerError, ConfigurationError, TlsFailed
from rmqjobs.testing.broker import free_port
from tests.helpers import Note, Stage, private_node, publishing, until, working


@dataclass
class Secured:
    """A node with a TLS listener, and the files its clients need."""

    port: int
    folder: Path

    def url(self, *options: str, host: str = "localhost", scheme: str = "amqps") -> str:
        return f"{scheme}://guest:guest@{host}:{self.port}/" + ("?" + "&".join(options) if options else "")

    @property
    def ca(self) -> str:
        return f"cafile={self.folder / 'ca.pem'}"

    @property
    def client(self) -> tuple[str, str]:
        return f"certfile={self.folder / 'client.pem'}", f"keyfile={self.folder / 'client.key'}"


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    folder = tmp_path_factory.mktemp("tls")
    authority, stranger = trustme.CA(), trustme.CA()
    authority.cert_pem.write_to_path(folder / "ca.pem")
    stranger.cert_pem.write_to_path(folder / "stranger.pem")
    for name, certificate in (("server", authority.issue_cert("localhost")), ("client", authority.issue_cert("client"))):
        certificate.private_key_pem.write_to_path(folder / f"{name}.key")
        for each in certificate.cert_chain_pems:
            each.write_to_path(folder / f"{name}.pem", append=True)
    port = free_port()
    config = (
        f"listeners.ssl.default = 127.0.0.1:{port}",
        "ssl_options.cacertfile = {home}/ca.pem",
        "ssl_options.certfile = {home}/server.pem",
        "ssl_options.keyfile = {home}/server.key",
        "ssl_options.verify = verify_peer",
        "ssl_options.fail_if_no_peer_cert = true",
    )
    with private_node(*config, files=[folder / each for each in ("ca.pem", "server.pem", "server.key")]):
        yield Secured(port, folder)


async def test_jobs_travel_over_tls(secured: Secured) -> None:
    settings, stage = Settings(url=secured.url(secured.ca, *secured.client)), Stage()
    async with publishing(settings) as jobs, working(stage, settings):
        await jobs.publish(Note(text="secret"))
        await until(lambda: stage.seen)
    async with desk(settings) as operator:
        assert await operator.depth("rmqjobs.demo") == 0


async def refused(url: str) -> str:
    settings = Settings(url=url)
    with pytest.raises(BrokerError) as raised:
        await connect(settings.broker, name="test", heartbeat=timedelta(seconds=5))
    with pytest.raises(BrokerError):
        async with desk(settings):
            pass
    gc.collect()
    assert "guest:guest" not in str(raised.value)
    assert isinstance(raised.value, TlsFailed), raised.value
    return str(raised.value)


async def test_an_unknown_authority_is_refused(secured: Secured) -> None:
    assert "certificate" in await refused(secured.url(*secured.client))
    assert "certificate" in await refused(secured.url(f"cafile={secured.folder / 'stranger.pem'}", *secured.client))


async def test_another_host_name_is_refused(secured: Secured) -> None:
    assert "127.0.0.1" in await refused(secured.url(secured.ca, *secured.client, host="127.0.0.1"))


async def test_verification_can_be_switched_off(secured: Secured) -> None:
    settings = Settings(url=secured.url("verify=no", *secured.client, host="127.0.0.1"))
    connection = await connect(settings.broker, name="test", heartbeat=timedelta(seconds=5))
    await connection.close()


async def test_plain_amqp_to_a_tls_port_says_so(secured: Secured) -> None:
    assert "TLS" in await refused(secured.url(scheme="amqp"))


async def test_without_the_client_certificate_the_broker_hangs_up(secured: Secured) -> None:
    assert "TLS" in await refused(secured.url(secured.ca))


def test_files_that_cannot_be_used_are_named_at_start(secured: Secured, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"no-such\.pem"):
        Settings.load(flags={"url": secured.url("cafile=/no-such.pem")})
    (tmp_path / "empty.pem").write_text("")
    with pytest.raises(ConfigurationError, match=r"empty\.pem"):
        Settings.load(flags={"url": secured.url(f"cafile={tmp_path / 'empty.pem'}")})
