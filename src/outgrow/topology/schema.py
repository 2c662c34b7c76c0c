"""The JSON Schema of outgrow.toml, for editors (`#:schema` in the file's first line)."""

from __future__ import annotations

from typing import Any

import msgspec

from outgrow.topology.model import STAGES, Topology

_DURATION = r"^\s*\d+(\.\d+)?\s*(ms|s|m|h|d)\s*$"


def json_schema() -> dict[str, Any]:
    """Draft 2020-12. It accepts what the parser accepts, but for ${NAME} inside patterned texts."""
    schema = msgspec.json.schema(Topology)
    definitions: dict[str, Any] = schema["$defs"]
    root = definitions.pop("Topology")
    root["properties"]["stage"] = {
        "description": root["properties"]["stage"]["description"],
        "enum": [*STAGES, *range(1, len(STAGES) + 1)],
        "default": STAGES[0],
    }
    for definition in definitions.values():
        for name, key in definition["properties"].items():
            if name.endswith("timeout"):
                number = {"type": "number", "exclusiveMinimum": 0}
                text = {"type": "string", "pattern": _DURATION}
                definition["properties"][name] = {
                    "description": key["description"],
                    "anyOf": [number, text],
                    "default": key["default"],
                }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "outgrow.toml",
        **root,
        "$defs": definitions,
    }
