"""From what a client sends to what an endpoint works with, or a Problem that names every wrong field.

msgspec decodes and checks in one pass in C, and stops at the first mistake. Only then is the document
looked at again, field by field, to tell all of them in the words that the API's clients know.
"""

import re
from functools import lru_cache
from typing import Any, NamedTuple, TypeVar
from urllib.parse import parse_qsl

import msgspec
from msgspec import Raw
from starlette.requests import Request

from conduit.problems import Problem, invalid, not_found, too_large

T = TypeVar("T", bound=msgspec.Struct)

BODY_BYTES_MAX = 1_000_000
LIMIT_DEFAULT, LIMIT_MAX = 20, 100
OFFSET_MAX = 1_000_000
NAME_LENGTH_MAX = 100
QUERY_FIELDS_MAX = 20

_envelope = msgspec.json.Decoder(dict[str, Raw])
_length = re.compile(r"of length ([<>])= (\d+)")
_BROKEN = (msgspec.DecodeError, UnicodeDecodeError)


class Filters(NamedTuple):
    """Which articles of a list, and which part of it."""

    tag: str | None
    author: str | None
    favorited: str | None
    limit: int
    offset: int

    def parameters(self) -> dict[str, Any]:
        """The parameters of a statement for a page: its filters that are set, and the offset."""
        given = {"tag": self.tag, "author": self.author, "favorited": self.favorited, "offset": self.offset}
        return {name: value for name, value in given.items() if value is not None}

    def shape(self) -> tuple[bool, bool, bool]:
        """Which of the filters are set: what statement it takes."""
        return self.tag is not None, self.author is not None, self.favorited is not None


async def read_body(request: Request, maximum_bytes: int, field: str = "body") -> bytes:
    """The request's body. Raises Problem 413 as soon as it is longer."""
    chunks, length = [], 0
    async for chunk in request.stream():
        length += len(chunk)
        if length > maximum_bytes:
            raise too_large(field, maximum_bytes)
        chunks.append(chunk)
    return b"".join(chunks)


def path_text(request: Request, name: str, resource: str) -> str:
    """A part of the path. Raises Problem 404 for what cannot be anybody's: no name holds a NUL."""
    text: str = request.path_params[name]
    if "\0" in text:
        raise not_found(resource)
    return text


async def read_document(request: Request, name: str, kind: type[T]) -> T:
    """The document in the body, {"article": {...}}. Raises Problem 422 with every mistake in it."""
    body = await read_body(request, BODY_BYTES_MAX)
    try:
        found = _envelope.decode(body)
    except _BROKEN:
        raise invalid("body", "is not a JSON object") from None
    document = found.get(name)
    if document is None:
        raise invalid(name, "can't be blank")
    try:
        return msgspec.json.decode(document, type=kind)
    except _BROKEN:
        raise Problem(422, _complaints(document, name, kind)) from None


def _complaints(document: Raw, name: str, kind: type[T]) -> dict[str, list[str]]:
    try:
        given = msgspec.json.decode(document, type=dict[str, Any])
    except _BROKEN:
        return {name: ["is not a JSON object"]}
    found = {}
    for field in msgspec.structs.fields(kind):
        key = field.encode_name
        if key not in given and not field.required:
            continue
        # A struct of this one field, since a field's type alone may not be decoded ("unset").
        alone = msgspec.defstruct(kind.__name__, [(key, field.type)])
        try:
            msgspec.convert({key: given.get(key)}, alone)
        except msgspec.ValidationError as error:
            found[key] = [_in_words(given.get(key), str(error))]
    return found


def _in_words(value: object, message: str) -> str:
    if value is None or (isinstance(value, str) and not value.strip()):
        return "can't be blank"
    length = _length.search(message)
    if length is not None and isinstance(value, str):
        limit = "short (minimum" if length[1] == ">" else "long (maximum"
        return f"is too {limit} is {length[2]} characters)"
    if isinstance(value, str):
        return "is invalid"
    return f"is invalid: {message[0].lower()}{message[1:]}"


@lru_cache(2048)
def filters_of(query: bytes) -> Filters:
    """What a query string asks for: the same text is parsed once. Raises Problem 422."""
    try:
        given = dict(parse_qsl(query.decode("latin-1"), max_num_fields=QUERY_FIELDS_MAX))
    except ValueError:
        raise invalid("query", f"has more than {QUERY_FIELDS_MAX} fields") from None
    return Filters(
        _name(given, "tag"),
        _name(given, "author"),
        _name(given, "favorited"),
        _number(given, "limit", LIMIT_DEFAULT, 1, LIMIT_MAX),
        _number(given, "offset", 0, 0, OFFSET_MAX),
    )


def _name(given: dict[str, str], field: str) -> str | None:
    value = given.get(field)
    if value is not None and "\0" in value:
        raise invalid(field, "is invalid")
    if value is not None and len(value) > NAME_LENGTH_MAX:
        raise invalid(field, f"is too long (maximum is {NAME_LENGTH_MAX} characters)")
    return value


def _number(given: dict[str, str], field: str, default: int, least: int, most: int) -> int:
    text = given.get(field)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit() and len(text) < 10 and least <= int(text) <= most):
        raise invalid(field, f"must be a number from {least} to {most}")
    return int(text)
