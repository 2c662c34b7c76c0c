"""Keeps the backups of a fleet: copies when they are due, what is too old away, and an eye on the archive.

python -m outgrow.backups.keeper PROGRAMS URL FOLDER
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections import deque
from pathlib import Path

from outgrow import endpoints
from outgrow.backups import copying, history
from outgrow.backups.mirror import Mirror
from outgrow.backups.s3 import Bucket
from outgrow.cluster import control
from outgrow.cluster.state import State
from outgrow.cluster.status import Backups
from outgrow.engines.postgres.archive import Archived, archived, system
from outgrow.errors import BeingChanged, OutgrowError
from outgrow.topology.model import Backup

LOOK_S = 1.0
SEEN_MAX = 3600
AGAIN_FIRST_S, AGAIN_S = 5.0, 60.0
"""After a copy that failed: twice as long each time, up to this."""


class Lateness:
    """How long ago was written what the archive has last. A busy database is never quite caught up with."""

    def __init__(self, now: float) -> None:
        self._reached = now
        self._seen: deque[tuple[float, int]] = deque(maxlen=SEEN_MAX)

    def look(self, found: Archived, now: float) -> None:
        """What it is at this moment of the monotonic clock."""
        if found.kept is None:
            return
        self._seen.append((now, found.written))
        while self._seen and self._seen[0][1] <= found.kept:
            self._reached, _ = self._seen.popleft()

    def seconds(self, now: float) -> float:
        """So much of what was written might be missing."""
        return now - self._reached


class Keeper:
    """One database's."""

    def __init__(self, state: State, settings: Backup, programs: Path, url: str, folder: Path) -> None:
        self._state, self._settings = state, settings
        self._programs, self._url, self._folder = programs, url, folder
        self._late = Lateness(time.monotonic())
        self._failure, self._not_before = "", 0.0
        self._failed_at: float | None = None
        self._again_s = AGAIN_FIRST_S
        self._mirrors = _mirrors(folder, settings)

    async def run(self) -> None:
        """Until it is ended. Whatever goes wrong is told and tried again."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        copying_now: asyncio.Task[None] | None = None
        mirroring = [asyncio.create_task(each.run()) for each in self._mirrors]
        while not any(each.done() for each in mirroring):
            try:
                line = history.current(self._folder, await system(self._url, self._password()))
                self._tell(await archived(self._url, self._password()), line)
                if (copying_now is None or copying_now.done()) and self._due(line):
                    copying_now = asyncio.create_task(asyncio.to_thread(self._copy, line))
            except (OutgrowError, OSError) as error:
                self._tell(Archived(connected=False, written=0, kept=None), None, str(error))
            await asyncio.sleep(LOOK_S)
        await asyncio.gather(*mirroring)  # it raises what nobody has thought of: the fleet starts this again

    def _due(self, line: history.History) -> bool:
        if time.monotonic() < self._not_before:
            return False
        copies = line.copies()
        return not copies or copies[-1].began + self._settings.every <= time.time()

    def _copy(self, line: history.History) -> None:
        try:
            passwords = Path(os.environ["PGPASSFILE"])
            copying.take(line, self._programs, self._url, passwords)
            for gone in history.tidy(self._folder, self._settings.keep):
                print(f"{gone} is not needed any more")  # noqa: T201, the node's log
            copying.shorten(line, self._programs)
            self._failure, self._again_s = "", AGAIN_FIRST_S
        except BeingChanged:
            return  # somebody makes one by hand
        except (OutgrowError, OSError) as error:
            self._failure, self._not_before = str(error), time.monotonic() + self._again_s
            self._failed_at, self._again_s = time.time(), min(AGAIN_S, 2 * self._again_s)
            print(f"no copy was made: {error}", file=sys.stderr)  # noqa: T201

    def _tell(self, found: Archived, line: history.History | None, failure: str = "") -> None:
        now = time.monotonic()
        self._late.look(found, now)
        copies = line.copies() if line is not None else []
        self._state.show_backups(
            Backups(
                at=time.time(),
                connected=found.connected,
                behind=found.behind,
                behind_s=round(self._late.seconds(now), 1),
                latest=copies[-1].ended if copies else None,
                earliest=copies[0].ended if copies else None,
                copies=len(copies),
                every=self._settings.every,
                failure=failure or self._failure,
                failed_at=self._failed_at,
                mirror_behind_s=max((round(each.behind_s, 1) for each in self._mirrors), default=None),
                mirror_failure=next((each.failure for each in self._mirrors if each.failure), ""),
            )
        )

    def _password(self) -> str:
        return endpoints.read_secrets(os.environ["OUTGROW_SECRETS"]).passwords["replication"]


def _mirrors(folder: Path, settings: Backup) -> tuple[Mirror, ...]:
    if settings.mirror is None:
        return ()
    bucket = Bucket(settings.mirror)
    return tuple(Mirror(folder, bucket, copies=copies) for copies in (False, True))


async def main(programs: str, url: str, folder: str) -> None:
    """As the fleet's topology says."""
    directory = Path(os.environ["OUTGROW_DIRECTORY"])
    topology = await control.topology(directory)
    keeper = Keeper(State(directory), topology.backup, Path(programs), url, Path(folder))
    work = asyncio.ensure_future(keeper.run())
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, os._exit, 0)  # a copy that is cut off is none
    await work


if __name__ == "__main__":
    try:
        asyncio.run(main(*sys.argv[1:]))
    except OutgrowError as error:
        sys.exit(error.message)
