"""The values of names, and headers that are made with them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from outgrow.load.template import Template


class Values(dict[str, Any]):
    """The values of names within one journey: what is drawn stays the same until its end."""

    __slots__ = ("_draw", "_variables")

    def __init__(self, draw: Callable[[str], Any], variables: Mapping[str, Any]) -> None:
        self._draw = draw
        self._variables = variables

    def __missing__(self, name: str) -> Any:
        if name in self._variables:
            return self._variables[name]
        value = self[name] = self._draw(name)
        return value


def header_lines(headers: Mapping[str, Template], values: Mapping[str, Any]) -> bytes:
    lines = [f"{name}: {_one_line(template.text(values))}\r\n" for name, template in headers.items()]
    return "".join(lines).encode()


def _one_line(text: str) -> str:
    return text.replace("\r", " ").replace("\n", " ")
