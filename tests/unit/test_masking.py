"""What looks like a secret is hidden, and nothing else."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rmqjobs.masking import HIDDEN, masked

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "user", "n"]), inner, max_size=3),
)


SECRETS = """password Passwd db_password secret clientSecret token access_token api_key apiKey X-Api-Key authorization
Set-Cookie private_key aws_secret_access_key credentials passphrase pin"""


@pytest.mark.parametrize("key", SECRETS.split())
def test_secrets_are_hidden_at_any_depth(key: str) -> None:
    assert masked({"a": [{key: {"deep": 1}}, {key: "x"}]}) == {"a": [{key: HIDDEN}, {key: HIDDEN}]}


@pytest.mark.parametrize("key", ["passenger", "compass", "shipping", "pinned", "user", "key", "keyboard", "tokyo"])
def test_what_only_sounds_like_one_is_shown(key: str) -> None:
    assert masked({key: "x"}) == {key: "x"}


def test_an_empty_secret_is_shown_as_that() -> None:
    assert masked({"password": "", "token": None}) == {"password": "", "token": None}


@given(JSON)
def test_what_has_no_secret_is_the_same(value: object) -> None:
    assert masked(value) == value
