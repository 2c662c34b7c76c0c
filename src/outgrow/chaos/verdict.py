"""Checkers: each holds one promise against a history, and says with figures whether it was kept.

Pure functions. tests/chaos plants a violation of each kind and requires that its checker finds that one,
and that no other checker finds anything.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import pairwise

import msgspec

from outgrow.chaos.history import Attempt, History

WINDOW_S = 1.0
STEP_S = 0.05
FACTOR = 2.0
"""As long as p99 is below so many times what it was at its worst in the calm, it is normal."""

CASES_MAX = 10

RELEASE, RUNS = "release", "runs on every server"
"""Who it was in the happenings that tell of a deploy, and how those end that were done."""


class Finding(msgspec.Struct, frozen=True):
    """One promise: whether it was kept, the figures in words and as numbers, and the first cases if not."""

    promise: str
    held: bool
    says: str
    figures: Mapping[str, float | None] = {}
    cases: list[str] = []


def reads(history: History, promise: str = "No read fails.") -> Finding:
    """Every safe request was answered as it should be."""
    every = [each for each in history.attempts if each.reads]
    return _none_failed(promise, every, "reads")


def writes(
    history: History,
    promise: str = "No write fails but those that were under way on the server when it was lost.",
    *,
    server: str = "",
    grace_s: float = 0.0,
) -> Finding:
    """A write may fail if it was under way in a disturbance, and not on a server that was spared.

    `grace_s` is for what is sent before anybody can know of the fault.
    """
    every = [each for each in history.attempts if not each.reads]
    failed = [each for each in every if has_failed(each)]
    excused = [each for each in failed if _excused(each, history, server, grace_s)]
    wrong = [each for each in failed if each not in excused]
    text = f"{len(failed):,} of {len(every):,} writes failed, {len(excused):,} of them under way at the fault"
    if failed:
        text += f" ({kinds_of(failed)})"
    figures = {"writes": len(every), "failed": len(failed), "excused": len(excused)}
    return Finding(promise, not wrong, text, figures, _cases(wrong))


def no_write_fails(history: History, promise: str = "No write fails.") -> Finding:
    """Every write was answered as it should be."""
    every = [each for each in history.attempts if not each.reads]
    return _none_failed(promise, every, "writes")


def lost(history: History, promise: str = "Every acknowledged write is there.") -> Finding:
    """Each mark whose write was answered was found when the load had ended."""
    acknowledged = _acknowledged(history)
    gone = [each for each in acknowledged if history.found.get(each.key, 0) == 0]
    text = f"{len(gone):,} of {len(acknowledged):,} acknowledged marks are lost"
    figures = {"acknowledged": len(acknowledged), "lost": len(gone)}
    return Finding(promise, bool(acknowledged) and not gone, text, figures, _cases(gone))


def repeated(history: History, promise: str = "No write is silently repeated.") -> Finding:
    """No mark is there twice, and no server's log has a write that another, or the same, has too."""
    more = {key: count for key, count in history.found.items() if count > 1}
    twice = [each for each in history.attempts if not each.reads and len(each.servers) > 1]
    cases = [f"mark {key} is there {count} times" for key, count in more.items()]
    cases += [f"{in_words(each)}, run by {', '.join(each.servers)}" for each in twice if each.key not in more]
    writes_ = sum(not each.reads for each in history.attempts)
    text = f"{len(cases):,} of {writes_:,} writes happened more than once"
    return Finding(promise, not cases, text, {"writes": writes_, "repeated": len(cases)}, cases[:CASES_MAX])


def stale(history: History, promise: str = "Every user sees their own writes.") -> Finding:
    """No session read a key without what it had been told before: its own write, or an earlier read."""
    wrong = [each for each in history.attempts if each.failure == "violation"]
    checked = 0
    for known, each in _reads_of_marks(history):
        checked += 1
        if each.version is not None and each.version < known:
            wrong.append(each)
    text = f"{len(wrong):,} answers showed the past; {checked:,} marks were read back"
    return Finding(promise, not wrong, text, {"stale": len(wrong), "read_back": checked}, _cases(wrong))


def _reads_of_marks(history: History) -> Iterable[tuple[int, Attempt]]:
    """Each read of a mark with what its session knew when it was sent."""
    knows: dict[tuple[int | None, str], list[tuple[float, int]]] = defaultdict(list)
    for each in history.attempts:
        if each.key and not each.failure and each.version is not None:
            knows[each.session, each.key].append((each.ended, each.version))
    for each in history.attempts:
        if each.key and each.reads and not each.failure:
            told = [version for ended, version in knows[each.session, each.key] if ended <= each.sent]
            yield max(told, default=0), each


def released(history: History, promise: str, *, runs: int, because: str = "") -> Finding:
    """So many releases were brought to every server; else the last one went again, for this reason."""
    said = [each.text for each in history.happenings if each.kind == "note" and each.node == RELEASE]
    ran = [each for each in said if each.endswith(RUNS)]
    held = len(ran) == len(said) == runs if runs else not ran and bool(said) and because in said[-1]
    return Finding(promise, held, "; ".join(said) or "none was deployed", {"releases": len(ran)})


def sessions_kept(history: History, request: str, promise: str = "No user loses their session.") -> Finding:
    """Whoever asked with their session, by the request of this name, was known."""
    every = [each for each in history.attempts if each.request == request]
    wrong = [each for each in every if each.failure.startswith("status 4")]
    users, losers = {each.session for each in every}, {each.session for each in wrong}
    text = f"{len(losers):,} of {len(users):,} users lost theirs; they asked {len(every):,} times"
    figures = {"users": len(users), "lost": len(losers)}
    return Finding(promise, bool(every) and not wrong, text, figures, _cases(wrong))


def recovers(
    history: History, fault: float, *, within_s: float, promise: str = "", factor: float = FACTOR
) -> Finding:
    """p99 over a sliding second is back below `factor` times the calm's, within so long after the fault."""
    promise = promise or f"p99 is back to normal within {within_s:g} s."
    normal = calm_p99(history)
    took = recovery_s(history, fault, factor * normal)
    figures = {"recovery_s": took, "calm_p99_ms": round(normal * 1000, 3), "within_s": within_s}
    calm = f"below {factor:g} x {normal * 1000:.1f} ms, the worst second before"
    if took is None:
        return Finding(promise, False, f"p99 was not {calm}, until the end", figures)
    return Finding(
        promise, took <= within_s, f"p99 was {calm}, from {took:.2f} s after the fault on", figures
    )


def in_time(history: History, begins: float, *, factor: float, least_s: float, promise: str) -> Finding:
    """p99 of what begins from then on, to the end, is at most `factor` times the calm's, or `least_s`."""
    normal, found = p99(history.attempts, *history.calm), p99(history.attempts, begins, history.ended)
    limit = max(factor * normal, least_s)
    text = f"p99 {found * 1000:.1f} ms, and {normal * 1000:.1f} ms before; at most {limit * 1000:.0f} ms"
    figures = {"p99_ms": round(found * 1000, 3), "calm_p99_ms": round(normal * 1000, 3)}
    return Finding(promise, 0 < found <= limit and normal > 0, text, figures)


def calm_p99(history: History) -> float:
    """The highest p99 of a sliding second in the calm, in seconds: what is normal at its worst."""
    begins, ends = history.calm
    return max(_windows(history.attempts, begins, ends).values(), default=0.0)


def recovery_s(history: History, fault: float, limit: float) -> float | None:
    """How long after the fault p99 is below the limit for good; None when it never is.

    Requests count where they were meant to start, so a second that begins after the recovery has none
    that the fault has touched.
    """
    windows = _windows(history.attempts, fault, history.ended)
    above = [begins for begins, value in windows.items() if value >= limit]
    if not windows or max(above, default=fault - 1) >= max(windows):
        return None
    return round(max((begins + STEP_S for begins in above), default=fault) - fault, 3)


def p99(attempts: Iterable[Attempt], begins: float, ends: float) -> float:
    """Of what was meant to start then and was answered, in seconds; 0 of nothing."""
    found = sorted(
        each.ended - each.intended for each in attempts if begins <= each.intended < ends and not each.failure
    )
    return found[_rank(len(found))] if found else 0.0


def _windows(attempts: Sequence[Attempt], begins: float, ends: float) -> dict[float, float]:
    """p99 of the second that begins at each step, by when it begins. Empty seconds are left out."""
    answered = sorted((each.intended, each.ended - each.intended) for each in attempts if not each.failure)
    found: dict[float, float] = {}
    step = 0
    while (first := begins + step * STEP_S) + WINDOW_S <= ends:
        low, high = bisect_left(answered, (first,)), bisect_left(answered, (first + WINDOW_S,))
        window = sorted(latency for _, latency in answered[low:high])
        if window:
            found[first] = window[_rank(len(window))]
        step += 1
    return found


def _rank(count: int) -> int:
    """Of the 99th percentile: the smallest value that 99 of 100 do not exceed."""
    return max(-(-count * 99 // 100) - 1, 0)


def serves_again(history: History, fault: float, *, within_s: float, promise: str = "") -> Finding:
    """After the fault, requests are answered again within so long, and none that is sent later fails."""
    promise = promise or f"It serves again within {within_s:g} s."
    mine = history.attempts
    failed = [each for each in mine if has_failed(each) and each.ended >= fault]
    last = max((each.sent for each in failed), default=fault)
    back = [each.ended for each in mine if not each.failure and each.sent >= last]
    kinds = f" ({kinds_of(failed)})" if failed else ""
    if not back:
        return Finding(promise, False, f"nothing was answered any more; {len(failed):,} failed{kinds}")
    took = round(max(min(back), fault) - fault, 3) if failed else 0.0
    text = f"{len(failed):,} requests failed{kinds}, the last one sent {last - fault:.2f} s after the fault"
    return Finding(promise, last - fault <= within_s, text, {"failed": len(failed), "serves_again_s": took})


def quiet(history: History, server: str, begins: float, ends: float, promise: str = "") -> Finding:
    """The balancers sent this server nothing in that time."""
    promise = promise or f"{server} gets no traffic while it is out."
    counted = list(_counts(history, server, begins, ends).values())
    if not counted or begins >= ends:
        return Finding(promise, False, f"{server} was never out")
    # A balancer that was started again counts from 0.
    sent = sum(max(after - before, 0) for counts in counted for before, after in pairwise(counts))
    text = f"{sent:,} requests were sent to {server} in {ends - begins:.1f} s"
    return Finding(promise, sent == 0, text, {"requests": sent, "seconds": round(ends - begins, 3)})


def returns(history: History, server: str, since: float, *, within_s: float) -> Finding:
    """The balancers send this server requests again, within so long."""
    promise = f"{server} serves again by itself."
    before: dict[str, int] = {}
    for each in sorted(history.samples, key=lambda sample: sample.at):
        if each.server != server or each.at < since:
            continue
        if each.healthy and each.requests > before.setdefault(each.balancer, each.requests):
            took = round(each.at - since, 3)
            text = f"it had requests again {took:.2f} s after the fault was undone"
            return Finding(promise, took <= within_s, text, {"returned_s": took, "within_s": within_s})
        if not each.healthy:
            before[each.balancer] = each.requests
    return Finding(promise, False, "it got no request any more", {"returned_s": None})


def better(
    history: History, one: tuple[float, float], other: tuple[float, float], *, times: float, promise: str
) -> Finding:
    """p99 in the other stretch is so many times lower than in the one."""
    first, second = p99(history.attempts, *one), p99(history.attempts, *other)
    ratio = first / second if second else 0.0
    text = f"p99 {first * 1000:.1f} ms against {second * 1000:.1f} ms: {ratio:.1f} times"
    figures = {
        "first_ms": round(first * 1000, 3),
        "second_ms": round(second * 1000, 3),
        "times": round(ratio, 2),
    }
    return Finding(promise, ratio >= times, text, figures)


def leaves(history: History, server: str, since: float, *, within_s: float) -> Finding:
    """A balancer takes this server out within so long."""
    promise = f"{server} is out within {within_s:.0f} s."
    out = [at for at in history.moments("out", server) if at >= since]
    if not out:
        return Finding(promise, False, f"{server} was never taken out", {"out_s": None})
    took = round(out[0] - since, 3)
    return Finding(promise, took <= within_s, f"it was out after {took:.2f} s", {"out_s": took})


def _counts(history: History, server: str, begins: float, ends: float) -> dict[str, list[int]]:
    found: dict[str, list[int]] = defaultdict(list)
    for each in history.samples:
        if each.server == server and begins <= each.at <= ends:
            found[each.balancer].append(each.requests)
    return found


def _acknowledged(history: History) -> list[Attempt]:
    return [each for each in history.attempts if each.key and not each.reads and not has_failed(each)]


def has_failed(attempt: Attempt) -> bool:
    """An answer that shows the past is an answer: `stale` judges it."""
    return attempt.failure not in ("", "violation")


def _excused(attempt: Attempt, history: History, server: str, grace_s: float) -> bool:
    if server and attempt.servers and server not in attempt.servers:
        return False
    return any(
        attempt.ended >= begins and attempt.sent <= ends + grace_s for begins, ends in history.disturbances()
    )


def _none_failed(promise: str, attempts: Sequence[Attempt], what: str) -> Finding:
    """Where there were none, nothing was shown."""
    failed = [each for each in attempts if has_failed(each)]
    text = f"{len(failed):,} of {len(attempts):,} {what} failed" + (
        f" ({kinds_of(failed)})" if failed else ""
    )
    return Finding(promise, bool(attempts) and not failed, text, {"failed": len(failed)}, _cases(failed))


def kinds_of(attempts: Collection[Attempt]) -> str:
    """How many failed, by how they failed."""
    counts = Counter(each.failure for each in attempts)
    return ", ".join(f"{count:,} {kind}" for kind, count in counts.most_common())


def _cases(attempts: Sequence[Attempt]) -> list[str]:
    return [in_words(each) for each in attempts[:CASES_MAX]]


def in_words(attempt: Attempt) -> str:
    """One attempt as a case: when, what, where, how it went."""
    name = f"{attempt.method} {attempt.request}".strip() or "a request"
    where = f" at {', '.join(attempt.servers)}" if attempt.servers else ""
    what = attempt.failure or "answered"
    trace = f", trace {attempt.trace}" if attempt.trace else ""
    detail = f": {attempt.detail}" if attempt.detail else ""
    took = attempt.ended - attempt.sent
    return f"{attempt.sent:.3f} s: {name}{where}: {what} after {took:.3f} s{trace}{detail}"
