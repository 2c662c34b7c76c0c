"""What a key accepts, in words: for the parser's messages and for the manual."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Mapping
from typing import Any

Schema = Mapping[str, Any]
SHOWN_MAX = 60


def accepted(schema: Schema) -> str:
    """For example `a whole number from 1 to 65535`, of a key's JSON Schema."""
    kind = alternative(schema)
    if "enum" in kind:
        return _one_of(kind["enum"])
    if "examples" in kind:
        return f"a text like {_one_of(kind['examples'])}"
    match kind["type"]:
        case "integer":
            return f"a whole number{_bounds(kind)}"
        case "number" if "pattern" in kind:
            return 'a duration from "1ms" to "1d", like "30s" or "5m"'
        case "number":
            return f"a number{_bounds(kind)}"
        case "boolean":
            return "true or false"
        case "object":
            return f"a table of names, each with {accepted(kind['additionalProperties'])}"
        case "array" if "$ref" in kind["items"]:
            return "tables, each under a [[...]] of its own"
        case "array":
            return f"an array, each {accepted(kind['items'])}"
        case "string":
            least = kind.get("minLength", 0)
            return f"a text of at least {least} characters" if least > 1 else "a text"
    raise AssertionError(f"no words for {kind}")


def alternative(schema: Schema) -> Schema:
    """The schema without its `null`, which TOML cannot say, and with what stands around it."""
    kinds = schema.get("anyOf")
    if kinds is None:
        return schema
    around = {name: value for name, value in schema.items() if name != "anyOf"}
    return {**next(kind for kind in kinds if kind.get("type") != "null"), **around}


def shown(value: Any) -> str:
    """A value as the file has it; a long one only by its kind."""
    if isinstance(value, dict | list):
        return "a table" if isinstance(value, dict) else "an array"
    text = json.dumps(value, ensure_ascii=False) if isinstance(value, bool | str) else str(value)
    return text if len(text) <= SHOWN_MAX else "this long value"


def nearest(word: str, known: Iterable[str]) -> str:
    """`did you mean "x"?`, or nothing when no known word is near."""
    found = difflib.get_close_matches(word, list(known), n=1, cutoff=0.55)
    return f'did you mean "{found[0]}"?' if found else ""


def _one_of(values: Iterable[Any]) -> str:
    *others, last = (json.dumps(value) for value in values)
    return f"{', '.join(others)} or {last}" if others else last


def _bounds(kind: Schema) -> str:
    least, most = (kind.get(name) for name in ("minimum", "maximum"))
    return f" from {least:,} to {most:,}" if least is not None and most is not None else ""
