"""Asking a node's Patroni. Blocking: callers in an event loop use a thread."""

from __future__ import annotations

import base64
import http.client
import json
from collections.abc import Mapping
from typing import Any

from outgrow.engines.patroni.patroni import REST
from outgrow.engines.patroni.view import Member, member
from outgrow.errors import FleetError

WITHIN_S = 3.0
CHANGE_WITHIN_S = 60.0


def look(name: str, host: str) -> Member | None:
    """The node as it is at this moment; None when it does not answer."""
    try:
        told = _ask("GET", host, "/patroni", None, {}, 1.0)
    except (OSError, ValueError, http.client.HTTPException):
        return None
    replaying = told[1].get("xlog") or {}
    position = replaying.get("replayed_location", replaying.get("location"))
    return member(name, {**told[1], "xlog_location": position})


def leads_copies(host: str) -> bool:
    """Whether the node follows a primary elsewhere, and the other nodes follow it."""
    try:
        return _ask("GET", host, "/standby-leader", None, {}, 1.0)[0] == http.client.OK
    except (OSError, ValueError, http.client.HTTPException):
        return False


class Client:
    """May change what a node does. `password` is the one that the nodes have for it."""

    def __init__(self, password: str) -> None:
        account = base64.b64encode(f"outgrow:{password}".encode()).decode()
        self._headers = {"Authorization": f"Basic {account}", "Content-Type": "application/json"}

    def change(
        self, method: str, host: str, path: str, body: Mapping[str, Any], within_s: float = CHANGE_WITHIN_S
    ) -> str:
        """Have a node do something; returns what it says. Raises FleetError when it does not do it."""
        try:
            status, told = _ask(method, host, path, body, self._headers, within_s)
        except (OSError, ValueError, http.client.HTTPException) as error:
            raise FleetError(f"{host} does not answer: {error}") from error
        text = str(told.get("text", told))
        if status >= http.client.BAD_REQUEST:
            raise FleetError(f"{host} refuses {path}: {text}")
        return text


def _ask(
    method: str,
    host: str,
    path: str,
    body: Mapping[str, Any] | None,
    headers: Mapping[str, str],
    within_s: float,
) -> tuple[int, dict[str, Any]]:
    connection = http.client.HTTPConnection(host, REST, timeout=within_s)
    try:
        connection.request(method, path, json.dumps(body) if body is not None else None, dict(headers))
        answer = connection.getresponse()
        text = answer.read().decode(errors="replace")
    finally:
        connection.close()
    try:
        told = json.loads(text)
    except ValueError:
        told = {}
    return answer.status, told if isinstance(told, dict) and told else {"text": text.strip()}
