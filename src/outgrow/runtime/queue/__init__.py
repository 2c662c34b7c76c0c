"""The queue tier: work done after the answer, at least once, if and only if its transaction commits."""

from outgrow.runtime.queue.queue import Queue, Task

__all__ = ["Queue", "Task"]
