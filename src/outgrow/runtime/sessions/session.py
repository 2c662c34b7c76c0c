"""request.session: a dictionary that remembers what this request has changed in it.

What it holds stays JSON, a text for each key, until somebody asks for it. A key counts as changed when
it was assigned or deleted, or when the value that was handed out is not any more what it was (a list
that somebody appended to). Only such keys are written, so that two requests lose nothing of each other.
"""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from typing import Any, Literal

import msgspec

from outgrow.errors import Misuse, SessionsUnavailable, SessionTooLarge

Raw = bytes
Content = dict[str, Raw]
"""Each key with the JSON of its value."""

_decode_object = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_decode = msgspec.json.decode
_encode = msgspec.json.encode
_GONE: Raw = b""


def content_of(data: bytes) -> Content:
    """What a record holds."""
    return {key: bytes(raw) for key, raw in _decode_object(data).items()}


def data_of(content: Content) -> bytes:
    """The JSON object that a record is to hold."""
    return _encode({key: msgspec.Raw(raw) for key, raw in content.items()})


def apply(changes: Content, content: Content) -> Content:
    """The content with these changes: of each key the last writer wins, other keys stay as they are."""
    merged = {**content, **changes}
    return {key: raw for key, raw in merged.items() if raw != _GONE}


class Session(MutableMapping[str, Any]):
    """Keys are texts, values are JSON: texts, numbers, booleans, None, lists and dictionaries of them.

    Every method raises SessionsUnavailable when the session could not be loaded: it is not empty
    then, it is unknown. Assigning raises Misuse for what JSON cannot say, SessionTooLarge, and Misuse
    once the answer has begun.
    """

    __slots__ = (
        "_assigned",
        "_content",
        "_failure",
        "_loaded",
        "_size_max",
        "_values",
        "accessed",
        "ending",
        "frozen",
        "refused",
    )

    def __init__(
        self, content: Content | None = None, *, size_max: int, failure: SessionsUnavailable | None = None
    ) -> None:
        self._loaded: Content = content or {}
        self._content: Content = self._loaded
        self._values: dict[str, Any] = {}
        self._assigned: set[str] = set()
        self._size_max = size_max
        self._failure = failure
        self.accessed = False
        self.frozen = False
        self.refused: SessionsUnavailable | None = None
        self.ending: Literal["", "rotate", "destroy"] = ""

    def rotate(self) -> None:
        """Give the session a new id when the answer begins; the old one is worth nothing from then on.

        To be called whenever somebody's rights change, above all at login: whoever knew the id before
        (session fixation) has nothing of it. Content and the end of its life stay.
        """
        self._write()
        if not self.ending:
            self.ending = "rotate"

    def destroy(self) -> None:
        """End it, at logout. What is assigned afterwards begins another one."""
        self._write()
        self._loaded = self._content = {}
        self._values.clear()
        self._assigned.clear()
        self.ending = "destroy"

    # `accessed`: the application has looked into it. `refused`: with what error, when it was unknown.

    def __getitem__(self, key: str) -> Any:
        self._use()
        if key not in self._values:
            self._values[key] = _decode(self._content[key])
        return self._values[key]

    def __setitem__(self, key: str, value: Any) -> None:
        self._write()
        if not isinstance(key, str):
            raise Misuse(f"session[{key!r}]: a key must be a text")
        content = {**self._content, key: _json(key, value)}
        require_size(content, self._size_max)
        self._content = content
        self._values[key] = value
        self._assigned.add(key)

    def __delitem__(self, key: str) -> None:
        self._write()
        if key not in self._content:
            raise KeyError(key)
        self._content = {other: raw for other, raw in self._content.items() if other != key}
        self._values.pop(key, None)
        self._assigned.add(key)

    def __contains__(self, key: object) -> bool:
        self._use()
        return key in self._content

    def __iter__(self) -> Iterator[str]:
        self._use()
        return iter(self._content)

    def __len__(self) -> int:
        self._use()
        return len(self._content)

    def __repr__(self) -> str:
        return f"<Session with {', '.join(self._content) or 'nothing'}>"

    def changes(self) -> Content:
        """The keys that this request has changed; a deleted one has no JSON. Raises what assigning does."""
        found = {key: self._content.get(key, _GONE) for key in self._assigned}
        for key, value in self._values.items():
            if isinstance(value, list | dict) and (raw := _json(key, value)) != self._content[key]:
                found[key] = raw
        return found

    @property
    def loaded(self) -> Content:
        """What it held when the request began; nothing after `destroy`."""
        return self._loaded

    def freeze(self) -> None:
        """The answer has begun: a change would come too late to be kept."""
        self.frozen = True

    def _use(self) -> None:
        self.accessed = True
        if self._failure is not None:
            self.refused = self._failure
            raise self._failure

    def _write(self) -> None:
        self._use()
        if self.frozen:
            raise Misuse(
                "the session was changed after the answer had begun",
                hint="change it before the response is returned; a stream's body comes too late",
            )


def _json(key: str, value: Any) -> Raw:
    """The value as JSON, out of which comes the same again. Raises Misuse for what is changed by it."""
    try:
        raw = _encode(value)
        same = _decode(raw) == value and bool(_encode(key))  # half a surrogate pair is no text
    except (TypeError, ValueError, OverflowError, RecursionError, msgspec.MsgspecError):
        same = False
    if not same:
        raise Misuse(
            f"session[{key!r}] = {type(value).__name__}: it would come back as something else",
            hint="it keeps JSON: texts, numbers, booleans, None, lists, and dictionaries with text keys",
        )
    return raw


def require_size(content: Content, size_max: int) -> None:
    """Raises SessionTooLarge."""
    size = len(data_of(content))
    if size > size_max:
        raise SessionTooLarge(size, size_max, max(content, key=lambda key: len(content[key])))
