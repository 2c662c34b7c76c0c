"""Who may change something from the page, asked of a dashboard that runs: everybody else is refused."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import httpx
import pytest

from tests.dashboard.conftest import Watched
from tests.support.fleets import wait_until

NONE: Mapping[str, str | None] = {}
BODY = b'{"servers": 2}'


class Page:
    """What the dashboard's own page sends, and changes of it."""

    def __init__(self, fleet: Watched) -> None:
        self.url = fleet.page
        self.host = fleet.page.removeprefix("http://")
        answer = httpx.get(f"{self.url}/api/actions", headers={"sec-fetch-site": "same-origin"}, timeout=5)
        self.set_cookie = answer.headers["set-cookie"]
        self.said = answer.json()
        self.headers = {
            "origin": self.url,
            "sec-fetch-site": "same-origin",
            "content-type": "application/json",
            "outgrow-token": self.said["token"],
            "cookie": self.set_cookie.partition(";")[0],
        }

    def send(
        self,
        path: str = "/api/scale",
        *,
        method: str = "POST",
        body: bytes = BODY,
        headers: Mapping[str, str | None] = NONE,
    ) -> httpx.Response:
        """`headers` are changed or, where they are None, left out."""
        sent = {name: value for name, value in (self.headers | dict(headers)).items() if value is not None}
        return httpx.request(method, f"{self.url}{path}", headers=sent, content=body, timeout=5)


@pytest.fixture
def page(watched: Watched) -> Iterator[Page]:
    """It leaves outgrow.toml as it was."""
    before = (watched.directory / "outgrow.toml").read_text()
    yield Page(watched)
    assert (watched.directory / "outgrow.toml").read_text() == before


def test_the_cookie_is_for_this_page_alone(page: Page) -> None:
    port = page.url.rpartition(":")[2]
    assert page.set_cookie.startswith(f"outgrow-dashboard-{port}=")
    assert {"HttpOnly", "SameSite=Strict", "Path=/api"} <= set(page.set_cookie.split("; "))
    assert page.said["allowed"] and page.said["token"] not in page.set_cookie


@pytest.mark.parametrize(
    "changes",
    [
        {"origin": "http://evil.example"},
        {"origin": "http://127.0.0.1:1"},
        {"origin": "null"},
        {"origin": None},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"sec-fetch-site": "none"},
        {"host": "evil.example"},
        {"host": "evil.example", "origin": "http://evil.example"},
        {"host": "127.0.0.1:1"},
        {"content-type": "text/plain"},
        {"content-type": "application/x-www-form-urlencoded"},
        {"content-type": None},
        {"outgrow-token": None},
        {"outgrow-token": "guessed"},
        {"cookie": None},
        {"cookie": "outgrow-dashboard=guessed"},
        {"x-forwarded-for": "127.0.0.1"},
        {"via": "1.1 proxy"},
    ],
    ids=str,
)
def test_others_are_refused(page: Page, changes: dict[str, str | None]) -> None:
    for path in ("/api/scale", "/api/drill"):
        answer = page.send(path, headers=changes)
        assert answer.status_code == 403 and answer.text.startswith("Refused: ")
        assert not [name for name in answer.headers if name.startswith("access-control")]


def test_the_cookie_of_another_name_or_process_is_refused(page: Page) -> None:
    name, _, value = page.headers["cookie"].partition("=")
    assert page.send(headers={"cookie": f"{name}={value[:-1]}"}).status_code == 403
    assert page.send(headers={"cookie": f"outgrow-dashboard-1={value}"}).status_code == 403
    assert page.send(headers={"cookie": f"other=1; {name}={value}"}, body=b"x").status_code == 400, (
        "this one passes"
    )


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_only_post_changes_anything(page: Page, method: str) -> None:
    assert page.send(method=method).status_code == page.send("/api/drill", method=method).status_code == 405


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b'{"servers": "3"}', b'{"servers": 3, "more": 1}', b'{"servers":3' + b" " * 5000 + b"}"],
)
def test_what_makes_no_sense_is_refused(page: Page, body: bytes) -> None:
    assert page.send(body=body).status_code == 400


@pytest.mark.skipif(os.getuid() != 0, reason="only root can be somebody else")
def test_another_user_of_this_machine_may_look_and_not_act(page: Page) -> None:
    asked = json.dumps([page.host, page.headers])
    code = """
import encodings.idna, http.client, json, os, sys
host, headers = json.loads(sys.argv[1])
os.setgid(65534); os.setuid(65534)
connection = http.client.HTTPConnection(host)
connection.request("GET", "/api/actions")
print(connection.getresponse().read().decode())
connection.request("POST", "/api/scale", b'{"servers": 2}', headers)
answer = connection.getresponse()
print(answer.status, answer.read().decode())
"""
    done = subprocess.run(
        [sys.executable, "-c", code, asked], capture_output=True, text=True, check=True, timeout=30
    )
    possible, refused = done.stdout.splitlines()
    assert json.loads(possible) == {**page.said, "allowed": False, "why": ONLY, "token": ""}
    assert refused == f"403 Refused: {ONLY}."


ONLY = "only the user who runs this fleet may change it"


def test_the_command_refuses_what_it_always_refuses_and_the_page_says_so(
    page: Page, watched: Watched
) -> None:
    """At stage 1 there is no balancer: `outgrow scale` says so."""
    assert page.send().status_code == 202
    wait_until(lambda: action(watched)["outcome"] != "running", "its end")
    told = action(watched)
    assert (
        told["outcome"] == "failed" and "servers" in told["line"] and told["says"] == "Scaling to 2 servers"
    )
    assert page.send(body=b'{"servers": 0}').status_code == 202
    assert page.send().status_code == 409, "one at a time"
    wait_until(lambda: action(watched)["outcome"] == "failed", "its end")


def test_a_drill_is_one_that_can_be_run_from_here(page: Page, watched: Watched) -> None:
    listed = {drill["name"]: drill["does"] for drill in page.said["drills"]}
    assert "SIGKILL" in listed["kill-server"] and "kill-supervisor" not in listed
    for name in ("kill-supervisor", "nothing", "--help", ""):
        assert page.send("/api/drill", body=json.dumps({"name": name}).encode()).status_code == 409
    begun = page.send("/api/drill", body=b'{"name": "kill-server"}')
    assert (begun.status_code, begun.json()["outcome"], begun.json()["line"]) == (202, "running", "")
    wait_until(lambda: action(watched)["outcome"] == "failed", "its end")
    assert "load.toml" in action(watched)["line"], "this application has no load for it"
    told = [event["text"] for event in watched.events() if event["kind"] == "drill"]
    assert told[0].startswith("kill-server has begun: SIGKILL") and told[-1].startswith("kill-server: ")


def action(fleet: Watched) -> Any:
    return fleet.snapshot()["action"]


def test_without_actions_the_page_only_shows(own_fleet: Watched) -> None:
    file = own_fleet.directory / "outgrow.toml"
    file.write_text(f"{file.read_text()}\n[dashboard]\nactions = false\n")
    own_fleet.start()
    own_fleet.wait_seen()
    page = Page(own_fleet)
    assert not page.said["allowed"] and page.said["token"] == ""
    assert page.send().status_code == 403
