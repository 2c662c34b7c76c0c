"""`outgrow cache`: what the caches of the running application are worth, and how they are made to forget."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

import click

from outgrow.cli import application, options, units
from outgrow.cli.console import Console, dim, doubtful, good, strong
from outgrow.cli.formatting import Command
from outgrow.cli.stopping import until_stopped
from outgrow.cli.table import table
from outgrow.errors import Misuse

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from outgrow.advisor.caches import Reads
    from outgrow.advisor.keys import Key
    from outgrow.dashboard.caches import Caches, Process, Server

FLUSH = "flush"
KEY_SHOWN = 60
"""Letters of a key that are shown: some are whole queries."""


def _words(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    from click.shell_completion import CompletionItem

    first = not ctx.params.get("words") and FLUSH.startswith(incomplete)
    flush = [CompletionItem(FLUSH, help="Forget entries, in all processes.")] if first else []
    return [*flush, CompletionItem(incomplete, type="dir")]


@click.command(cls=Command)
@click.argument("words", metavar="[flush] [APP_DIR]", nargs=-1, shell_complete=_words)
@click.option(
    "--tag", "tags", metavar="TAG", multiple=True, help="flush: what has this tag or key. Repeatable."
)
@click.option("--all", "everything", is_flag=True, help="flush: everything.")
@options.as_json
def command(words: tuple[str, ...], tags: tuple[str, ...], everything: bool, as_json: bool) -> None:
    """Show what the caches of the running application do, or FLUSH them.

    By key prefix, in all processes together and since each began: how reads ended, the share that needed no
    load of its own, how many loads there were and how long they took. Sessions that pass the cache by count
    among the reads. Then the keys that are read most now, and what each process holds.

    `outgrow cache flush` has all processes forget what has one of the tags or keys, or everything: what was
    changed behind the application's back is asked for again.
    """
    flushes = words[:1] == (FLUSH,)
    directory = _directory(words[1:] if flushes else words)
    _require_sense(tags, flushes=flushes, everything=everything)
    where, console = application.fleet_directory(directory), Console(as_json=as_json)
    if flushes:
        _flush(where, tags, console)
    else:
        _show(where, console)


def _directory(words: tuple[str, ...]) -> Path | None:
    if len(words) > 1:
        raise Misuse(f"{words[1]!r} is one word too many", hint="`outgrow cache [flush] [APP_DIR]`")
    return Path(words[0]) if words else None


def _require_sense(tags: tuple[str, ...], *, flushes: bool, everything: bool) -> None:
    if not flushes and (tags or everything):
        raise Misuse("--tag and --all are about what is forgotten", hint="`outgrow cache flush` forgets")
    if flushes and not tags and not everything:
        hint = "`--tag TAG` forgets what has this tag or key, `--all` everything"
        raise Misuse("what is to be forgotten?", hint=hint)
    if tags and everything:
        raise Misuse("--all forgets what has any tag", hint="leave out --tag or --all")
    if "" in tags:
        raise Misuse("a tag has at least one letter", hint="`--all` forgets everything")


def _flush(directory: Path, tags: tuple[str, ...], console: Console) -> None:
    from outgrow.growth.flush import flush

    asyncio.run(until_stopped(flush(directory, tags)))
    what = ", ".join(tags) if tags else "everything"
    console.result({"flushed": list(tags), "everything": not tags}, f"{good('✓')} forgotten: {strong(what)}")


def _show(directory: Path, console: Console) -> None:
    from outgrow.dashboard import caches

    found = asyncio.run(caches.look(directory))
    console.result(found, text(found))


def text(found: Caches) -> str:
    """For people: the prefixes, the processes, the Redis."""
    from outgrow.advisor.caches import OUTCOMES

    if found.prefixes:
        headings = ("prefix", "reads", "hit rate", *OUTCOMES, "loads", "mean load")
        rows = [_row(each, _plain(each.prefix)) for each in found.prefixes]
        if len(rows) > 1:
            rows.append(_row(found.whole, dim("all")))
        shown = table(headings, rows, right=range(1, len(headings)))
    else:
        shown = "no reads yet" if found.engine != "off" else "[cache] engine is off: nothing is kept"
    parts = [shown]
    if found.keys:
        rows = [_key(each) for each in found.keys]
        parts.append(table(("key", "reads/s", "share", "kept in"), rows, right=range(1, 4)))
    rows = [_process(each) for each in found.processes]
    parts.append(table(("process", "entries", "memory", "evicted"), rows, right=range(1, 4)))
    if found.server is not None:
        parts.append(_server(found.server))
    return "\n\n".join(parts)


def _row(reads: Reads, name: str) -> tuple[str, ...]:
    return (
        name,
        f"{reads.reads:,}",
        "" if reads.hit_rate is None else f"{reads.hit_rate:.1%}",
        *(f"{count:,}" if count else "" for count in reads.outcomes.values()),
        f"{reads.loads:,}",
        "" if reads.load_seconds is None else f"{reads.load_seconds * 1000:.3g} ms",
    )


def _plain(key: str) -> str:
    """A key may be made of what a caller has sent: it is to move no cursor."""
    cut = key if len(key) <= KEY_SHOWN else key[: KEY_SHOWN - 1] + "…"
    return "".join(each if each.isprintable() else "\N{REPLACEMENT CHARACTER}" for each in cut)


def _key(key: Key) -> tuple[str, ...]:
    kept = f"{key.kept} process{'es' if key.kept > 1 else ''}" if key.kept else ""
    return _plain(key.key), f"{key.rate:,.1f}", f"{key.share:.1%}", kept


def _process(process: Process) -> tuple[str, ...]:
    if process.entries is None:
        return process.node, doubtful("unknown"), "", ""
    return process.node, f"{process.entries:,}", units.size(process.bytes or 0), f"{process.evicted or 0:,}"


def _server(server: Server) -> str:
    if server.trouble is not None:
        return doubtful(server.trouble)
    of = f" of {units.size(server.memory_max)}" if server.memory_max else ""
    memory = f"{units.size(server.memory or 0)}{of}"
    return f"redis-cache   {memory}   {server.keys:,} keys   {server.evicted:,} evicted"
