"""One operation of a session on one key: what the checkers of the session guarantees look at (guarantees.py).

A history proves something only if its versions can be ordered without trusting what is under test. So each
write has a `value` that no other has, and the database itself counts a key's versions, in the transaction of
the write:

    UPDATE register SET previous = value, value = :value, version = version + 1 WHERE key = :key
    RETURNING version, previous

A bookmark is noted for whoever reads a case, and decides nothing.
"""

from __future__ import annotations

from typing import Literal

import msgspec

READ_YOUR_WRITES = "read your writes"
MONOTONIC_READS = "monotonic reads"
MONOTONIC_WRITES = "monotonic writes"
WRITES_FOLLOW_READS = "writes follow reads"
CAUSAL = "causal order"
REAL = "only what was written is read"
ONCE = "no write takes effect twice"
GUARANTEES = (READ_YOUR_WRITES, MONOTONIC_READS, MONOTONIC_WRITES, WRITES_FOLLOW_READS, CAUSAL, REAL, ONCE)
"""What a session can rely on; the last two are what the others make no sense without."""

Kind = Literal["read", "write", "send", "receive"]
Outcome = Literal["ok", "failed", "unknown"]


class Operation(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What one session did, one after the other. Times are seconds of one clock for all sessions.

    `version` and `value` are what a read saw and what a write made; a key that was never written has version
    0 and value 0. `previous` is the value that this one has replaced, 0 also where it is not known. A write
    whose outcome is unknown may or may not take effect. `message` joins a "send" to each "receive" of it, and
    also stands at the write whose transaction has sent it. `demand` is the bookmark with which it was asked.
    """

    session: int
    kind: Kind
    started: float
    ended: float
    key: str = ""
    version: int = 0
    value: int = 0
    previous: int = 0
    outcome: Outcome = "ok"
    message: int = 0
    node: str = ""
    demand: str = ""

    def __str__(self) -> str:
        what = f"{self.kind}s {self.key}" if self.key else f"{self.kind}s message {self.message}"
        if self.key and (self.version or self.kind == "read"):
            what += f" at version {self.version} (value {self.value})"
        where = f" on {self.node}" if self.node else ""
        demand = f", with bookmark {self.demand}" if self.demand else ""
        outcome = "" if self.outcome == "ok" else f", {self.outcome}"
        return f"{self.started:.6f}-{self.ended:.6f} session {self.session} {what}{where}{demand}{outcome}"
