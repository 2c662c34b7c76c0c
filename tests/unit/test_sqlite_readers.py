"""SQLite opens as many readers as blocks are open, and keeps as many as the pool holds."""

from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from outgrow.endpoints import Database as Settings
from outgrow.endpoints import Node, Shard
from outgrow.runtime.database.database import Database
from outgrow.runtime.events import Events
from outgrow.runtime.ids import Ids


async def test_more_blocks_than_the_pool_holds(tmp_path: Path) -> None:
    node = Node("db", f"sqlite:///{tmp_path / 'data.db'}")
    settings = Settings(engine="sqlite", shards=(Shard("0", (node,)),), pool=2)
    database = Database(settings, passwords={}, events=Events(), ids=Ids(), headers=lambda: "{}")
    await database.open()
    for _ in range(3):
        async with AsyncExitStack() as blocks:
            for _ in range(5):
                await blocks.enter_async_context(database.read())
            assert database.figures()["db"]["used"] == 5
        assert database.figures()["db"] == {"idle": 2, "used": 0, "max": 3}
    with pytest.raises(KeyboardInterrupt):
        async with database.read():
            raise KeyboardInterrupt  # what may still be at work: its connection is not kept
    assert database.figures()["db"] == {"idle": 1, "used": 0, "max": 3}
    await database.close()
