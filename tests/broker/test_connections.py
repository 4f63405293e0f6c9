"""Wrong URL, password, virtual host, permissions, TLS, arguments: one clear sentence each, the password never in it."""

import secrets
from collections.abc import AsyncIterator, Callable
from datetime import timedelta

import pytest

from rmqjobs import AsyncPublisher, Settings
from rmqjobs.amqp.connection import Channel
from rmqjobs.amqp.reviewing import desk
from rmqjobs.errors import (
    AuthenticationFailed,
    BrokerError,
    BrokerUnavailable,
    PermissionMissing,
    TlsFailed,
    TopologyConflict,
    VhostNotFound,
)
from rmqjobs.testing.broker import RunningBroker, free_port
from rmqjobs.worker import Worker
from tests.helpers import Note, Stage, manage, raw_channel, until, working


def at(settings: Settings, change: Callable[[str], str]) -> Settings:
    return settings.model_copy(update={"url": change(settings.url), "publish_timeout": timedelta(seconds=2)})


WRONG: list[tuple[str, Callable[[str], str], type[BrokerError], str]] = [
    ("nobody there", lambda _: f"amqp://guest:topsecret@127.0.0.1:{free_port()}/", BrokerUnavailable, "no RabbitMQ answers"),
    ("no such host", lambda _: "amqp://guest:topsecret@no-such-host.invalid/", BrokerUnavailable, "no-such-host.invalid"),
    ("wrong password", lambda url: url.replace("guest:guest@", "guest:topsecret@"), AuthenticationFailed, "user 'guest'"),
    ("wrong virtual host", lambda url: url.rstrip("/") + "/nowhere", VhostNotFound, "'nowhere'"),
    ("TLS to a plain port", lambda url: url.replace("amqp://", "amqps://"), TlsFailed, "TLS"),
]


@pytest.mark.parametrize(("change", "kind", "said"), [row[1:] for row in WRONG], ids=[row[0] for row in WRONG])
async def test_a_worker_does_not_start_and_says_why(
    settings: Settings, change: Callable[[str], str], kind: type[BrokerError], said: str
) -> None:
    with pytest.raises(kind) as caught:
        await Worker(Stage().registry, at(settings, change)).start()
    assert said in str(caught.value)
    assert "topsecret" not in str(caught.value)


@pytest.mark.parametrize(("change", "kind", "said"), [row[1:] for row in WRONG], ids=[row[0] for row in WRONG])
async def test_an_operator_is_told_the_same(
    settings: Settings, change: Callable[[str], str], kind: type[BrokerError], said: str
) -> None:
    with pytest.raises(kind) as caught:
        async with desk(at(settings, change)):
            pass
    assert said in str(caught.value)
    assert "topsecret" not in str(caught.value)


async def test_a_publisher_with_a_wrong_password_fails_at_once(settings: Settings) -> None:
    async with AsyncPublisher(settings=at(settings, lambda url: url.replace("guest:guest@", "guest:topsecret@"))) as jobs:
        with pytest.raises(AuthenticationFailed):
            await jobs.publish(Note(text="a"))


@pytest.fixture
async def stranger(settings: Settings, broker: RunningBroker) -> AsyncIterator[Settings]:
    """A user that may connect and do nothing else."""
    if broker.management_url is None:
        pytest.skip("RMQJOBS_MANAGEMENT_URL is not set")
    name = f"u{secrets.token_hex(3)}"
    manage(broker, "PUT", f"users/{name}", {"password": "p", "tags": ""})
    manage(broker, "PUT", f"permissions/%2F/{name}", {"configure": "^$", "write": "^$", "read": "^$"})
    yield at(settings, lambda url: url.replace("guest:guest@", f"{name}:p@"))
    manage(broker, "DELETE", f"users/{name}", None)


async def test_a_missing_permission_names_what_is_refused(stranger: Settings) -> None:
    with pytest.raises(PermissionMissing, match=r"refused for user.*topology permissions"):
        await Worker(Stage().registry, stranger).start()
    async with AsyncPublisher(settings=stranger) as jobs:
        with pytest.raises(PermissionMissing, match="refused"):
            await jobs.publish(Note(text="a"))


async def test_a_queue_with_other_arguments_is_named(settings: Settings) -> None:
    async with raw_channel(settings) as channel:
        await channel.declare_queue(f"{settings.prefix}.demo", durable=True)
        with pytest.raises(TopologyConflict, match=rf"{settings.prefix}\.demo.*never changes arguments"):
            await Worker(Stage().registry, settings).start()


async def test_a_journal_that_cannot_be_had_does_not_hold_up_jobs(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Streams of RabbitMQ 3.10 may stay down after a crash of their node; here its declaration is refused."""
    real = Channel.call

    async def refuses_streams(channel: Channel, method: str, **arguments: object) -> object:
        if method == "queue_declare" and str(arguments["queue"]).endswith(".journal"):
            await channel.close()
            raise BrokerError("404 home node of the stream is down")
        return await real(channel, method, **arguments)

    monkeypatch.setattr(Channel, "call", refuses_streams)
    stage = Stage()
    async with AsyncPublisher(settings=settings) as jobs, working(stage, settings):
        await jobs.publish(Note(text="goes on"))
        await until(lambda: stage.seen)
