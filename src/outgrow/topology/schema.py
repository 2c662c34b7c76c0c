"""The JSON Schema of outgrow.toml, for editors (`#:schema` in the file's first line)."""

from __future__ import annotations

from typing import Any

import msgspec

from outgrow.topology.model import STAGES, Topology
from outgrow.topology.wording import alternative

_VARIABLE = {"description": "taken from the environment", "type": "string", "pattern": r"\$\{\w+\}"}


def json_schema() -> dict[str, Any]:
    """Draft 2020-12. It accepts what the parser accepts; what ${NAME} stands for only the parser sees."""
    schema = msgspec.json.schema(Topology)
    definitions: dict[str, Any] = schema["$defs"]
    root = definitions.pop("Topology")
    root["properties"]["stage"] |= {"enum": [*STAGES, *range(1, len(STAGES) + 1)]}
    del root["properties"]["stage"]["type"]
    for table in (root, *definitions.values()):
        table["properties"] = {name: _key(key) for name, key in table["properties"].items()}
        del table["required"]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **root,
        "title": "outgrow.toml",
        "description": "what an application consists of, and where each tier runs",
        "$defs": {**definitions, "Variable": _VARIABLE},
    }


def _key(schema: dict[str, Any]) -> dict[str, Any]:
    """One key as TOML can say it: no null, and ${NAME} wherever only certain texts are right."""
    if "$ref" in schema:
        return {"$ref": schema["$ref"]}
    schema = {
        name: value for name, value in alternative(schema).items() if (name, value) != ("default", None)
    }
    if "items" in schema and "$ref" not in schema["items"]:
        schema["items"] = _key(schema["items"])
    texts = all(isinstance(value, str) for value in schema.get("enum", ()))
    if not texts or not schema.keys() & {"enum", "pattern", "minLength"}:
        return schema
    around = {name: value for name, value in schema.items() if name in ("description", "default")}
    kind = {name: value for name, value in schema.items() if name not in around}
    if kind.get("type") == "number":  # a duration: the bounds are for numbers, the pattern is for texts
        kind["type"] = ["number", "string"]
    return {**around, "anyOf": [kind, {"$ref": "#/$defs/Variable"}]}
