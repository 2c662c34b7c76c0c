"""Asking etcd, through its JSON gateway. Blocking: callers in an event loop use a thread."""

from __future__ import annotations

import base64
import http.client
import json
import ssl
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from outgrow.errors import FleetError

WITHIN_S = 2.0


class Entry(NamedTuple):
    """The value of a key, and when it came into being, by etcd's count."""

    value: str
    created: int


class Peer(NamedTuple):
    """A node of etcd as the others know it. `started`: it has been there once, with data."""

    number: str
    name: str
    peers: tuple[str, ...]
    started: bool


class Client:
    """Asks any of the nodes. `settings` are as Patroni has them: hosts, cert, key, cacert."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self._hosts: Sequence[str] = settings["hosts"]
        self._context = ssl.create_default_context(cafile=settings["cacert"])
        self._context.load_cert_chain(settings["cert"], settings["key"])
        self._connection: http.client.HTTPSConnection | None = None

    def below(self, prefix: str) -> dict[str, Entry]:
        """All keys that begin with it, without it. Raises FleetError when no node answers."""
        end = prefix[:-1] + chr(ord(prefix[-1]) + 1)
        told = self._ask("kv/range", {"key": _encoded(prefix), "range_end": _encoded(end)})
        return {
            _decoded(each["key"]).removeprefix(prefix): Entry(
                _decoded(each.get("value", "")), int(each["create_revision"])
            )
            for each in told.get("kvs", [])
        }

    def put(self, key: str, value: str) -> None:
        """Raises FleetError when no node answers."""
        self._ask("kv/put", {"key": _encoded(key), "value": _encoded(value)})

    def delete(self, key: str, entry: Entry) -> bool:
        """Only if it is still this one. Raises FleetError when no node answers."""
        same = {"key": _encoded(key), "target": "CREATE", "create_revision": str(entry.created)}
        delete = {"request_delete_range": {"key": _encoded(key)}}
        told = self._ask("kv/txn", {"compare": [same], "success": [delete]})
        return bool(told.get("succeeded", False))

    def members(self) -> list[Peer]:
        """Who belongs to it. Raises FleetError when no node answers."""
        told = self._ask("cluster/member/list", {})
        return [
            Peer(each["ID"], each.get("name", ""), tuple(each["peerURLs"]), "clientURLs" in each)
            for each in told.get("members", [])
        ]

    def forget(self, member: Peer) -> None:
        """It belongs to them no more. Raises FleetError when they cannot agree on that."""
        self._ask("cluster/member/remove", {"ID": member.number})

    def take_in(self, peer_url: str) -> None:
        """A node without data is about to start there. Raises FleetError when they cannot agree on that."""
        self._ask("cluster/member/add", {"peerURLs": [peer_url]})

    def close(self) -> None:
        """Let go of the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _ask(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """The connection that there is; else each node in turn."""
        wrong: Exception | None = None
        if self._connection is not None:
            try:
                return self._post(self._connection, path, body)
            except (OSError, ValueError, http.client.HTTPException):
                self.close()
        for each in self._hosts:
            host, _, port = each.rpartition(":")
            connection = http.client.HTTPSConnection(host, int(port), timeout=WITHIN_S, context=self._context)
            try:
                told = self._post(connection, path, body)
            except (OSError, ValueError, http.client.HTTPException) as error:
                connection.close()
                wrong = error
            else:
                self._connection = connection
                return told
        raise FleetError(f"etcd does not answer: {wrong}", hint="`outgrow logs etcd-1` says more")

    def _post(
        self, connection: http.client.HTTPSConnection, path: str, body: Mapping[str, Any]
    ) -> dict[str, Any]:
        connection.request("POST", f"/v3/{path}", json.dumps(body), {"Content-Type": "application/json"})
        answer = connection.getresponse()
        text = answer.read()
        if answer.status != http.client.OK:  # this node has no quorum; another may
            raise ValueError(text.decode(errors="replace"))
        told: dict[str, Any] = json.loads(text)
        return told


def _encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def _decoded(text: str) -> str:
    return base64.b64decode(text).decode()
