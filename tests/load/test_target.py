"""Load goes to this machine, unless somebody says otherwise."""

from __future__ import annotations

import pytest

from outgrow.errors import Misuse, OutgrowError
from outgrow.load.target import resolve


@pytest.mark.parametrize("url", ["http://127.0.0.1:8000", "http://127.9.9.9", "http://[::1]:80/base/"])
def test_this_machine(url: str) -> None:
    assert resolve(url).url == url


def test_its_parts() -> None:
    target = resolve("http://localhost:8123/base/")
    assert (target.host, target.port, target.prefix) == ("localhost:8123", 8123, "/base")
    assert target.address in ("127.0.0.1", "::1")


@pytest.mark.parametrize("url", ["http://192.0.2.1:8000", "http://0.0.0.0:8000", "http://[2001:db8::1]/"])
def test_another_machine_only_when_it_is_allowed(url: str) -> None:
    with pytest.raises(Misuse, match="is not on this machine"):
        resolve(url)
    assert resolve(url, allow_remote=True).url == url


@pytest.mark.parametrize(
    "url",
    [
        "https://127.0.0.1",
        "127.0.0.1:8000",
        "http://",
        "http://127.0.0.1:port",
        "http://a@127.0.0.1",
        "http://127.0.0.1/?x=1",
    ],
)
def test_what_is_no_target(url: str) -> None:
    with pytest.raises(Misuse):
        resolve(url)


def test_a_name_that_nobody_knows() -> None:
    with pytest.raises(OutgrowError, match="cannot be resolved"):
        resolve("http://nowhere.invalid")
