"""Least response time: weights from measured latencies, since Envoy itself has no such algorithm.

Envoy chooses by weight / (requests under way + 1). The weight of a server is (how much slower it is than
the fastest one) to the power of -4, and 1 as long as nothing proves that it is slower:

    slower = its mean log latency - the fastest's - twice the standard error of their difference
    weight = exp(-4 * max(0, slower))

The logarithm makes a mix of cheap and dear requests comparable: all servers get the same mix. What was
measured fades within about a second. So the proof against a server that gets little traffic fades, too,
its weight rises, it is tried again, and either it is fast now or the proof is renewed.
"""

from __future__ import annotations

import math
from collections.abc import Container, Sequence

import msgspec

POWER = 4.0
"""With 3 a server 5 times slower still gets 1 request in 60, enough to be seen in the p99."""

CERTAINTY = 2.0
"""Standard errors: equal servers keep equal weights, and a slow one is found within 1 to 2 s."""

MEMORY_S = 0.8
FEW = 6.0
FEW_MEMORY_S = 6.0
"""Few measurements fade more slowly, or a server with hardly any traffic would be tried all the time."""

SPREAD_MIN = 0.02
"""Variance of log latencies; below it the clock's own grain and luck would count as proof."""

WEIGHT_MIN = 0.002
FAILED_S = 1.0
"""An error counts as an answer that took so long at least: failing fast must not attract traffic."""


class Track:
    """The faded measurements of one server, as logarithms of seconds."""

    __slots__ = ("_squares", "_sum", "count")

    def __init__(self) -> None:
        self.count = self._sum = self._squares = 0.0

    def add(self, logarithm: float) -> None:
        """One more."""
        self.count += 1.0
        self._sum += logarithm
        self._squares += logarithm * logarithm

    def fade(self, seconds: float) -> None:
        """So much time has passed."""
        kept = math.exp(-seconds / (MEMORY_S if self.count > FEW else FEW_MEMORY_S))
        self.count *= kept
        self._sum *= kept
        self._squares *= kept

    @property
    def mean(self) -> float:
        """Of what is left."""
        return self._sum / self.count

    @property
    def deviations(self) -> float:
        """The sum of the squared deviations from the mean."""
        return max(0.0, self._squares - self._sum * self._sum / self.count)


class Latencies:
    """What was measured of each server, by its address."""

    def __init__(self) -> None:
        self._tracks: dict[str, Track] = {}
        self._faded_at: float | None = None

    def note(self, server: str, seconds: float, *, failed: bool = False) -> None:
        """An answer of this server has taken so long to begin."""
        seconds = max(seconds, FAILED_S) if failed else max(seconds, 1e-6)
        self._tracks.setdefault(server, Track()).add(math.log(seconds))

    def fade(self, now: float) -> None:
        """Let what was measured before `now` (monotonic seconds) count less."""
        if self._faded_at is not None:
            for track in self._tracks.values():
                track.fade(now - self._faded_at)
        self._faded_at = now

    def keep(self, servers: Container[str]) -> None:
        """Forget all others."""
        self._tracks = {server: track for server, track in self._tracks.items() if server in servers}

    def weights(self, pool: Sequence[str]) -> dict[str, float]:
        """The weight of each server of a pool, at most 1. What has not been measured has 1."""
        known = {s: track for s in pool if (track := self._tracks.get(s)) is not None and track.count >= 1.0}
        weights = dict.fromkeys(pool, 1.0)
        if len(known) < 2:
            return weights
        freedom = max(1.0, sum(track.count for track in known.values()) - len(known))
        spread = max(SPREAD_MIN, sum(track.deviations for track in known.values()) / freedom)
        fastest = min(known.values(), key=lambda track: track.mean + _doubt(spread / track.count))
        for server, track in known.items():
            doubt = _doubt(spread / track.count + spread / fastest.count)
            slower = max(0.0, track.mean - fastest.mean - doubt)
            weights[server] = max(WEIGHT_MIN, math.exp(-POWER * slower))
        return weights


def _doubt(variance: float) -> float:
    return CERTAINTY * math.sqrt(variance)


class Record(msgspec.Struct):
    """One answer, as Envoy tells it. What does not apply is "-"."""

    server: str
    status: int | str
    us: int | str


MARK = b"\x92\xa7latency"
"""How each message of Fluentd's forward protocol begins: an array of two, the first of them our tag."""

HELD_MAX = 4 * 1024 * 1024
_DECODER = msgspec.msgpack.Decoder(tuple[str, list[tuple[int, Record]]])


class Reader:
    """The records in a stream of such messages. Raises msgspec.DecodeError when it is none."""

    def __init__(self) -> None:
        self._held = b""

    def feed(self, data: bytes) -> list[Record]:
        """Those that are complete now. A message's last part says nothing of its end: the next one does."""
        first, *rest = (self._held + data).split(MARK)
        self._held = b""
        if first and not rest and MARK.startswith(first):
            self._held = first
        elif first:
            raise msgspec.DecodeError("the stream does not begin with a message of ours")
        messages = []
        for number, part in enumerate(rest, 1):
            try:
                messages.append(_DECODER.decode(MARK + part))
            except msgspec.DecodeError:
                if number < len(rest) or len(part) > HELD_MAX:
                    raise
                self._held = MARK + part
        return [record for _, entries in messages for _, record in entries]
