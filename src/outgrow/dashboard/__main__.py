"""`python -m outgrow.dashboard`: the dashboard of the fleet in OUTGROW_DIRECTORY.

It listens on the sockets that the supervisor has opened, as every process of a fleet does.
"""

from __future__ import annotations

import gc
import os
import socket
import sys
from pathlib import Path

from outgrow.cluster.state import State
from outgrow.dashboard.app import App
from outgrow.runtime import serve
from outgrow.runtime.telemetry import logs


class Server(serve.Server):
    """Ends the open streams first: they would otherwise never end."""

    def __init__(self, app: App, environment: dict[str, str]) -> None:
        super().__init__(serve.configuration(serve.Guarded(app), environment))
        self._app = app

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop serving."""
        self._app.stream.close()
        await super().shutdown(sockets)


def main() -> int:
    """Serve until a signal; returns the exit code."""
    environment = dict(os.environ)
    directory = environment.get("OUTGROW_DIRECTORY")
    if directory is None:
        sys.stderr.write("OUTGROW_DIRECTORY is not set: `outgrow up` starts the dashboard\n")
        return 2
    logs.install()
    state = State(Path(directory))
    app = App(state.application, state.logs, actions=environment.get("OUTGROW_ACTIONS") == "1")
    server = Server(app, environment)
    gc.collect()
    gc.freeze()
    server.run(sockets=serve.inherited_sockets(environment))
    return 0


if __name__ == "__main__":
    sys.exit(main())
