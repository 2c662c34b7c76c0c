"""A real S3-compatible server for tests: rclone, which serves a folder."""

from __future__ import annotations

import secrets
import socket
import subprocess
import sys
from pathlib import Path

from tests.support.fleets import wait_until
from tests.support.lacking import lacking
from tests.support.ports import free_port

BUCKET = "backups"


class S3Server:
    """One bucket. `stop` leaves no process behind; the folder stays, and another start serves it again."""

    def __init__(self, folder: Path) -> None:
        self._program = Path(sys.executable).with_name("rclone")
        if not self._program.exists():
            lacking(f"{self._program} is missing: `make setup`")
        self.folder = folder / BUCKET
        self.folder.mkdir(parents=True)
        self.port = free_port()
        self.environment = {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.port}",
            "AWS_ACCESS_KEY_ID": secrets.token_hex(10),
            "AWS_SECRET_ACCESS_KEY": secrets.token_hex(20),
        }
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Until it serves."""
        key = ",".join(self.environment[name] for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"))
        log = self.folder.parent / "rclone.log"
        argv: list[str | Path] = [self._program, "serve", "s3", "--config", "/dev/null", "--auth-key", key]
        argv += ["--addr", f"127.0.0.1:{self.port}", self.folder.parent]
        with log.open("wb") as output:
            self._process = subprocess.Popen(argv, stdout=output, stderr=output)
        wait_until(self._listens, "the store")

    def _listens(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), 1).close()
        except OSError:
            return False
        return True

    def stop(self) -> None:
        """SIGKILL: whatever was being written is cut off."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def files(self) -> set[str]:
        """What is in the bucket."""
        return {path.relative_to(self.folder).as_posix() for path in self.folder.rglob("*") if path.is_file()}
