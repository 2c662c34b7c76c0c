"""Texts with names to fill in, and places in a JSON document.

"/api/articles/{slug}"     a name in braces stands for its value; {{ and }} for the braces themselves
"{comment_id}"             alone in a text, it is the value itself: a number stays a number
"articles.*.author.name"   a place: keys, positions from 0, and * for each element of an array
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final
from urllib.parse import quote

_PIECE = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]|[^{}]+")
_NAME = re.compile(r"[A-Za-z_]\w*(?:\.(?:\w+|\*))*")
_PLACE = re.compile(r"(?:[^.\s]+)(?:\.[^.\s]+)*")


class Missing:
    """There is nothing at this place."""

    def __repr__(self) -> str:
        return "nothing"


MISSING: Final = Missing()


class Place:
    """A place in a document."""

    __slots__ = ("_parts", "many", "text")

    def __init__(self, text: str) -> None:
        if not _PLACE.fullmatch(text):
            raise ValueError('is no place in an answer like "article.slug" or "comments.*.id"')
        self.text = text
        self._parts = tuple(text.split("."))
        self.many = "*" in self._parts

    def find(self, document: Any) -> Any:
        """The value there, a list of values when the place has a "*", or MISSING."""
        return _find(document, self._parts)


class Template:
    """A text with names to fill in. Raises ValueError when its braces do not match."""

    __slots__ = ("_pieces", "_single", "roots")

    def __init__(self, text: str) -> None:
        self._pieces = tuple(_pieces(text))
        names = [piece for piece in self._pieces if isinstance(piece, tuple)]
        self.roots = frozenset(name[0] for name in names)
        self._single = names[0] if len(self._pieces) == 1 and names else None

    def text(self, values: Mapping[str, Any]) -> str:
        """The text. Raises KeyError for a name without a value."""
        return "".join(
            [piece if isinstance(piece, str) else _text(_named(values, piece)) for piece in self._pieces]
        )

    def address(self, values: Mapping[str, Any]) -> str:
        """The text as a part of a URL, with what is filled in escaped."""
        return "".join(
            [
                piece if isinstance(piece, str) else quote(_text(_named(values, piece)), safe="")
                for piece in self._pieces
            ]
        )

    def value(self, values: Mapping[str, Any]) -> Any:
        """The value itself when the text is one name alone, the text else."""
        return self.text(values) if self._single is None else _named(values, self._single)


class Document:
    """A JSON document whose texts are templates."""

    __slots__ = ("_form", "constant", "roots")

    def __init__(self, form: Any) -> None:
        roots: set[str] = set()
        self._form = _compiled(form, roots)
        self.roots = frozenset(roots)
        self.constant = not roots

    def fill(self, values: Mapping[str, Any]) -> Any:
        """The document. Raises KeyError for a name without a value."""
        return _filled(self._form, values)


def _pieces(text: str) -> Iterator[str | tuple[str, ...]]:
    for found in _PIECE.finditer(text):
        piece, name = found[0], found[1]
        if name is not None:
            if not _NAME.fullmatch(name):
                raise ValueError(f"{piece} is no name in braces; {{{{ stands for a brace")
            yield tuple(name.split("."))
        elif piece in ("{", "}"):
            raise ValueError(f'has a lone "{piece}"; {piece}{piece} stands for a brace')
        else:
            yield piece[0] if piece in ("{{", "}}") else piece


def _named(values: Mapping[str, Any], name: tuple[str, ...]) -> Any:
    value = values[name[0]]
    if len(name) > 1:
        value = _find(value, name[1:])
        if value is MISSING:
            raise KeyError(".".join(name))
    return value


def _text(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    return value if isinstance(value, str) else str(value)


def _find(document: Any, parts: tuple[str, ...]) -> Any:
    for number, part in enumerate(parts):
        if part == "*":
            if not isinstance(document, list):
                return MISSING
            rest = parts[number + 1 :]
            found = [_find(each, rest) for each in document]
            return [each for each in found if each is not MISSING]
        if isinstance(document, dict):
            document = document.get(part, MISSING)
        elif isinstance(document, list) and part.isdigit() and int(part) < len(document):
            document = document[int(part)]
        else:
            return MISSING
        if document is MISSING:
            return MISSING
    return document


def _compiled(form: Any, roots: set[str]) -> Any:
    if isinstance(form, str):
        template = Template(form)
        roots |= template.roots
        return template
    if isinstance(form, dict):
        return {key: _compiled(value, roots) for key, value in form.items()}
    if isinstance(form, list | tuple):
        return [_compiled(value, roots) for value in form]
    return form


def _filled(form: Any, values: Mapping[str, Any]) -> Any:
    if isinstance(form, Template):
        return form.value(values)
    if isinstance(form, dict):
        return {key: _filled(value, values) for key, value in form.items()}
    if isinstance(form, list):
        return [_filled(value, values) for value in form]
    return form
