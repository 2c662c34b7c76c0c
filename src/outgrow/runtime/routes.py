"""The name of the route that served a request: "/articles/{slug}", never the path itself.

It is a label of metrics, so it must come from the application's code and not from the caller.

    Starlette, FastAPI   scope["route"], with the prefixes of the mounts around it
    FastAPI 0.165+       the context of an included router, which knows the router's prefix
    Litestar             scope["path_template"]; a plain ASGI application can set the same key
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

UNMATCHED = "unmatched"
KNOWN_MAX = 10_000


class Routes:
    """Remembers each route object's whole template. A look-up is one dictionary access."""

    __slots__ = ("_known",)

    def __init__(self) -> None:
        # By identity, as Starlette's routes compare by value and cannot be hashed. The entry holds
        # the route, so that its id is not given to another object.
        self._known: dict[int, tuple[object, str]] = {}

    def template(self, scope: Mapping[str, Any]) -> str:
        """The template of the route that the framework has noted in `scope`, else "unmatched"."""
        route = scope.get("route")
        if route is None:
            return scope.get("path_template") or UNMATCHED
        fastapi = scope.get("fastapi")
        if fastapi is not None:
            route = fastapi.get("effective_route_context") or route
        known = self._known.get(id(route))
        if known is not None and known[0] is route:
            return known[1]
        return self._learn(route, scope.get("router"))

    def _learn(self, route: Any, router: Any) -> str:
        for found, template in _walk(getattr(router, "routes", ()), "", 0):
            self._remember(found, template)
        known = self._known.get(id(route))
        if known is not None and known[0] is route:
            return known[1]
        template = _format(route) or UNMATCHED
        self._remember(route, template)
        return template

    def _remember(self, route: object, template: str) -> None:
        if len(self._known) >= KNOWN_MAX:
            self._known.clear()
        self._known[id(route)] = (route, template)


def _walk(routes: Any, prefix: str, depth: int) -> Iterator[tuple[object, str]]:
    """Every route below a router with its whole template. Mounts and hosts nest; cycles end by depth."""
    if depth > 16:
        return
    for route in routes or ():
        contexts = getattr(route, "effective_route_contexts", None)
        if contexts is not None:
            for context in contexts():
                yield context, prefix + _format(context)
            continue
        yield route, prefix + _format(route)
        inner = getattr(route, "routes", None)
        if inner:
            yield from _walk(inner, prefix + getattr(route, "path", ""), depth + 1)


def _format(route: Any) -> str:
    return getattr(route, "path_format", None) or getattr(route, "path", "") or ""
