"""Clients that never stop while an application grows, and the command that grows it."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import msgspec

from tests.support.fleets import RunningFleet, wait_until

WITHIN_S = 90.0


class Traffic:
    """Writers that read each write back at once, and readers. Whatever goes wrong is noted.

    `lenient` clients, for when the fleet itself is killed, count only what was acknowledged and is lost.
    Where there are replicas a reader may see what another session has written `late_s` after it.
    """

    def __init__(
        self, fleet: RunningFleet, *, writers: int = 2, readers: int = 1, late_s: float = 0.0
    ) -> None:
        self.written: dict[str, str] = {}
        self.wrong: list[str] = []
        self.requests = 0
        self.lenient = False
        self._late_s = late_s
        self._fleet = fleet
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._writing, args=(n,)) for n in range(writers)]
        self._threads += [threading.Thread(target=self._reading) for _ in range(readers)]

    def __enter__(self) -> Traffic:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def wait_for_more(self, count: int = 20) -> None:
        """Until some more writes have been acknowledged."""
        wanted = len(self.written) + count
        wait_until(lambda: len(self.written) >= wanted, "writes that are acknowledged again")

    def require_all_there(self) -> None:
        """Every acknowledged write is there, with the work that it caused."""
        with httpx.Client(base_url=self._fleet.url, timeout=10) as client:
            for note, text in list(self.written.items()):
                answer = client.get(f"/notes/{note}")
                assert answer.status_code == 200, f"{text!r} was acknowledged and is lost"
                assert answer.json()["text"] == text

            def counted(note: str) -> bool:
                return bool(client.get(f"/notes/{note}").json()["words"] == 4)

            for note in list(self.written):
                wait_until(lambda note=note: counted(note), "every message to be worked on")  # type: ignore[misc]

    def _writing(self, writer: int) -> None:
        number = 0
        with httpx.Client(base_url=self._fleet.url, timeout=20) as client:
            while not self._stop.wait(0.01):
                number += 1
                self._checked(lambda n=number: self._write(client, f"writer {writer} says {n}"))

    def _write(self, client: httpx.Client, text: str) -> None:
        answer = client.post("/notes", json={"text": text}).raise_for_status()
        note = answer.json()["id"]
        self.written[note] = text
        read = client.get(f"/notes/{note}")
        if read.status_code >= 500:  # a server that was killed: it failed, which is not to have told the past
            read.raise_for_status()
        if read.status_code != 200 or read.json()["text"] != text:
            self.wrong.append(f"{text!r} was written and read back as {read.status_code} {read.text}")
        listed = client.get("/notes").raise_for_status().json()["notes"]
        numbers = {int(each["id"]) for each in listed}
        if int(note) not in numbers and int(note) > min(numbers):  # not pushed out by newer ones
            self.wrong.append(f"{text!r} was written and is not in the list")

    def _reading(self) -> None:
        with httpx.Client(base_url=self._fleet.url, timeout=20) as client:
            while not self._stop.wait(0.005):
                if self.written:
                    self._checked(lambda: self._read(client))

    def _read(self, client: httpx.Client) -> None:
        # A copy, which is one step, while going through it is many: writers add to it meanwhile.
        note, text = random.choice(list(self.written.copy().items()))
        deadline = time.monotonic() + self._late_s
        answer = client.get(f"/notes/{note}")
        while answer.status_code == 404 and time.monotonic() < deadline:
            answer = client.get(f"/notes/{note}")
        if answer.status_code == 404 or (answer.is_success and answer.json()["text"] != text):
            self.wrong.append(f"{text!r} was acknowledged and is read as {answer.text}")
        answer.raise_for_status()

    def _checked(self, work: object) -> None:
        try:
            work()  # type: ignore[operator]
            self.requests += 1
        except httpx.HTTPError as error:
            if not self.lenient:
                body = error.response.text if isinstance(error, httpx.HTTPStatusError) else ""
                self.wrong.append(f"{type(error).__name__}: {error} {body}")
            self._stop.wait(0.05)


class Command:
    """`outgrow grow`, `shrink` or another in a process of its own."""

    def __init__(self, fleet: RunningFleet, *arguments: str) -> None:
        self._output = fleet.directory.parent / "command.output"
        self._journal = fleet.state.growth / "journal.jsonl"
        kept = {key: value for key, value in os.environ.items() if not key.startswith("OUTGROW_")}
        with self._output.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "outgrow.cli", *arguments],
                cwd=fleet.directory,
                env=kept,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def said(self) -> str:
        """All that it printed."""
        return self._output.read_text(errors="replace")

    def wait(self) -> int:
        """Its exit code."""
        code = self.process.wait(WITHIN_S)
        assert "Traceback" not in self.said, self.said
        return code

    def wait_done(self) -> str:
        """Until it has ended well; what it said."""
        code = self.wait()
        assert code == 0, f"exit code {code}: {self.said}"
        return self.said

    def wait_for(self, event: str, step: str, kept: str = "") -> bool:
        """Until the journal has that line, or the command has ended. Returns whether it has."""
        deadline = time.monotonic() + WITHIN_S
        before = len(lines(self._journal))
        while self.process.poll() is None:
            assert time.monotonic() < deadline, self.said
            for line in lines(self._journal)[before:]:
                if line["event"] == event and line.get("step") == step and kept in str(line.get("kept", "")):
                    return True
            time.sleep(0.001)
        return False

    def kill(self) -> None:
        """kill -9, the processes it has started too."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def lines(journal: Path) -> list[dict[str, object]]:
    """The whole lines of a journal."""
    try:
        whole = journal.read_bytes().split(b"\n")[:-1]
    except FileNotFoundError:
        return []
    return [msgspec.json.decode(line) for line in whole]
