"""Entity tags, as RFC 9110 has them."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from outgrow import ETag
from outgrow.errors import Misuse

OPAQUE = st.text(st.characters(min_codepoint=0x21, max_codepoint=0xFF, exclude_characters='"\x7f'))


class Article(msgspec.Struct):
    slug: str
    tags: list[str]


@pytest.mark.parametrize(
    ("header", "held"),
    [
        (None, False),
        ("", False),
        ('"xyzzy"', True),
        ('W/"xyzzy"', True),
        ('"xyzzy", "r2d2xxxx", "c3piozzzz"', True),
        ('W/"r2d2xxxx" ,W/"xyzzy"', True),
        ('"a, b", "xyzzy"', True),
        ('"a", "xyzzyx"', False),
        ('"a, xyzzy, b"', False),
        ("xyzzy", False),
        ("*", True),
        (" * ", True),
        ('"*"', False),
        (b'"xyzzy"', True),
        (b"\xff\xfe", False),
        ('"' * 10_000, False),
    ],
)
def test_what_a_caller_holds(header: str | bytes | None, held: bool) -> None:
    assert ETag("xyzzy").held(header) is held
    assert ETag("xyzzy", weak=True).held(header) is held


@given(OPAQUE, st.booleans(), st.lists(OPAQUE))
def test_what_is_said_is_understood(opaque: str, weak: bool, others: list[str]) -> None:
    tag = ETag(opaque, weak=weak)
    header = ", ".join([*(str(ETag(each)) for each in others), str(tag)])
    assert tag.held(header) and tag.held(header.encode("latin-1"))
    assert ETag("never-there").held(header) is ("never-there" in [*others, opaque])


def test_it_is_of_what_is_said() -> None:
    assert ETag.of(b"body") == ETag.of(b"body") != ETag.of(b"another")
    assert ETag.of(b"body", weak=True) != ETag.of(b"body")
    assert str(ETag.of(b"body", weak=True)) == f"W/{ETag.of(b'body')}"
    assert ETag.of("ab", "c") != ETag.of("a", "bc")
    assert ETag.of(1) != ETag.of("1") != ETag.of(b"1")
    assert ETag.of({"a": 1, "b": 2}) == ETag.of({"b": 2, "a": 1})
    assert ETag.of(Article("a", ["b"]), 3) != ETag.of(Article("a", ["c"]), 3)
    assert len(str(ETag.of(b"body"))) == 22
    assert len({ETag.of(number) for number in range(1000)}) == 1000


@pytest.mark.parametrize("opaque", ['a"b', "a b", "a\r\nb", "\x7f", "é\u0101"])
def test_what_cannot_be_one_is_refused(opaque: str) -> None:
    with pytest.raises(Misuse, match="entity tag"):
        ETag(opaque)


def test_what_nobody_can_write_down_is_refused() -> None:
    with pytest.raises(Misuse, match=r"ETag\.of"):
        ETag.of(object())


def test_a_304_says_what_is_kept_with_it() -> None:
    headers: list[Any] = [
        (b"content-type", b"application/json"),
        (b"content-length", b"2"),
        (b"Cache-Control", b"no-cache"),
        (b"vary", b"Authorization"),
        (b"etag", b'"xyzzy"'),
        (b"access-control-allow-origin", b"*"),
        (b"outgrow-bookmark", b"token"),
    ]
    start = {"type": "http.response.start", "status": 200, "headers": headers}
    told = ETag("xyzzy").not_modified(start)
    assert told["status"] == 304 and told["type"] == "http.response.start"
    assert [name for name, _ in told["headers"]] == [
        b"Cache-Control", b"vary", b"access-control-allow-origin", b"outgrow-bookmark", b"etag",
    ]  # fmt: skip
    assert start["status"] == 200 and len(headers) == 7, "what others are sent is as it was"
