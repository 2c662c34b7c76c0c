"""uvicorn for the versions without Outgrow, with the settings that Outgrow's own server has.

python -m benchmarks.serve module:attribute PORT
"""

from __future__ import annotations

import gc
import sys

import uvicorn
from uvicorn.importer import import_from_string

from outgrow.runtime.serve import FULL_COLLECTION_AFTER, GC_THRESHOLD, MIDDLE_COLLECTION_AFTER


def main(reference: str, port: int) -> None:
    """Serve until a signal."""
    app = import_from_string(reference)
    gc.collect()
    gc.freeze()
    gc.set_threshold(GC_THRESHOLD, MIDDLE_COLLECTION_AFTER, FULL_COLLECTION_AFTER)
    uvicorn.run(
        app,
        host="127.0.0.1",
        port=port,
        loop="uvloop",
        http="httptools",
        interface="asgi3",
        log_level="warning",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=75,
    )


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
