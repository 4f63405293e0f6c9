"""Settings: sources, their order, and what is said about a wrong one."""

from datetime import timedelta

import pytest

from rmqjobs.errors import ConfigurationError
from rmqjobs.settings import Broker, Endpoint, Settings, mask_url


def test_a_flag_beats_the_environment_beats_the_file_beats_the_default() -> None:
    file, environ, flags = (
        {"threads": 2, "children": 3, "grace": "4s"},
        {"RMQJOBS_CHILDREN": "5", "RMQJOBS_GRACE": "6s"},
        {"grace": "7s"},
    )
    settings = Settings.load(flags=flags, environ=environ, file=file)
    assert (settings.concurrency, settings.threads, settings.children) == (100, 2, 5)
    assert settings.grace == timedelta(seconds=7)


def test_a_flag_that_is_not_given_counts_for_nothing() -> None:
    assert Settings.load(flags={"threads": None}, environ={"RMQJOBS_THREADS": "3"}).threads == 3


@pytest.mark.parametrize(("text", "seconds"), [("25s", 25), ("1h30m", 5400), ("90", 90), ("PT2M", 120), ("24h", 86400)])
def test_durations(text: str, seconds: int) -> None:
    assert Settings.load(environ={"RMQJOBS_GRACE": text}).grace == timedelta(seconds=seconds)


def test_plugins_of_the_environment_are_separated_by_commas() -> None:
    assert Settings.load(environ={"RMQJOBS_PLUGINS": "video, mail"}).plugins == ("video", "mail")


@pytest.mark.parametrize(
    ("sources", "said"),
    [
        ({"environ": {"RMQJOBS_GRACE": "soon"}}, ["RMQJOBS_GRACE", "'soon'"]),
        ({"environ": {"RMQJOBS_THREADS": "0"}}, ["RMQJOBS_THREADS", "'0'"]),
        ({"flags": {"concurrency": -1}}, ["--concurrency", "-1"]),
        ({"file": {"treads": 3}}, ["rmqjobs.toml: treads", "no such setting", "threads"]),
        ({"environ": {"RMQJOBS_URL": "http://h/"}}, ["http://h/", "amqp://"]),
        ({"environ": {"RMQJOBS_URL": "amqp://u:topsecret@h:port/"}}, ["u:***@h:port", "'port'"]),
        ({"environ": {"RMQJOBS_URL": "redis://u:topsecret@h/"}}, ["redis://u:***@h/"]),
        ({"environ": {"RMQJOBS_URL": "amqps://u:topsecret@h/?verfy=no"}}, ["verfy"]),
        ({"environ": {"RMQJOBS_URL": "amqp://h:5672:5673/"}}, ["'h:5672:5673', which cannot be read"]),
        ({"environ": {"RMQJOBS_URL": "amqp://::1/"}}, ["'::1'", "in brackets"]),
        ({"environ": {"RMQJOBS_URL": "amqp://h,,i/"}}, ["the host ''"]),
        ({"environ": {"RMQJOBS_URL": "amqp://u:topsecret/more@h/"}}, ["'/' or '?' before its '@'", "%XX"]),
        ({"environ": {"RMQJOBS_URL": "amqp://u:topsecret?more@h/"}}, ["'/' or '?' before its '@'"]),
        ({"environ": {"RMQJOBS_URL": "amqp://u:topsecret@h/\nv"}}, ["is not an AMQP URL"]),
    ],
)
def test_a_wrong_value_is_named_with_its_place(sources: dict[str, dict[str, object]], said: list[str]) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Settings.load(**sources)  # type: ignore[arg-type]
    assert [part for part in said if part not in str(caught.value)] == []
    assert "topsecret" not in str(caught.value)


def test_a_url_with_everything() -> None:
    broker = Broker.from_url("amqps://ada:p%40ss@one:5000,two,[::1]:7/my%2Fvhost?cafile=/ca.pem&verify=no")
    assert broker.endpoints == (Endpoint("one", 5000), Endpoint("two", 5671), Endpoint("::1", 7))
    assert (broker.user, broker.password, broker.vhost) == ("ada", "p@ss", "my/vhost")
    assert broker.tls is not None
    assert (broker.tls.ca_file, broker.tls.verify) == ("/ca.pem", False)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("amqp://u:p@h/team@prod", ("h", 5672, "u", "p", "team@prod")),
        ("amqp://u:p@ss@h:1/v", ("h", 1, "u", "p@ss", "v")),
        ("amqp://h/team@prod", ("h", 5672, "guest", "guest", "team@prod")),
        ("amqps://u:p@h/v", ("h", 5671, "u", "p", "v")),
        ("amqp://u:p@h/v\n", ("h", 5672, "u", "p", "v")),
        ("  amqp://u:p@[fe80::1]:5673/v\r\n", ("fe80::1", 5673, "u", "p", "v")),
    ],
)
def test_the_parts_of_a_url(url: str, expected: tuple[object, ...]) -> None:
    broker = Settings.load(environ={"RMQJOBS_URL": url}).broker
    endpoint = broker.endpoints[0]
    assert (endpoint.host, endpoint.port, broker.user, broker.password, broker.vhost) == expected


def test_an_at_sign_in_a_file_name_is_no_part_of_the_host() -> None:
    broker = Broker.from_url("amqps://u:p@h/v?cafile=/etc/a@b.pem")
    assert broker.endpoints == (Endpoint("h", 5671),)
    assert broker.tls is not None
    assert broker.tls.ca_file == "/etc/a@b.pem"


def test_an_ipv6_address_is_shown_in_brackets() -> None:
    assert str(Broker.from_url("amqp://u:p@[::1]:5673/v")) == "amqp://u:***@[::1]:5673/v"


def test_every_value_of_the_environment_may_end_in_a_line_break() -> None:
    settings = Settings.load(environ={"RMQJOBS_PREFIX": "shop\n", "RMQJOBS_MANAGEMENT_URL": "http://h:1/\n"})
    assert (settings.prefix, settings.management_url) == ("shop", "http://h:1/")


def test_a_short_url_means_a_guest_at_the_default_port() -> None:
    broker = Broker.from_url("amqp://localhost")
    assert (broker.endpoints, broker.user, broker.vhost, broker.tls) == ((Endpoint("localhost", 5672),), "guest", "/", None)


def test_no_text_form_shows_the_password() -> None:
    url = "amqp://ada:topsecret@h/v"
    settings = Settings.load(flags={"url": url})
    texts = [str(settings.broker), repr(settings.broker), repr(settings), str(settings), mask_url(url)]
    assert [text for text in texts if "topsecret" in text] == []


def test_an_unreadable_certificate_is_named() -> None:
    tls = Broker.from_url("amqps://h/?cafile=/nowhere/ca.pem").tls
    assert tls is not None
    with pytest.raises(ConfigurationError, match=r"/nowhere/ca\.pem"):
        tls.context()
