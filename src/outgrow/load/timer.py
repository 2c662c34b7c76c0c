"""A timer of the kernel for the event loop, exact to tens of microseconds.

The loops' own timers count in milliseconds, and the half millisecond by which a request would leave
late on average is as long as a fast answer takes. Linux's timerfd has no such grid, and unlike turning
in a loop until the moment has come it leaves the core to the application under test.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
from collections.abc import Callable

_CLOCK_MONOTONIC = 1
_ABSOLUTE = 1
_NONBLOCK = os.O_NONBLOCK
_CLOSE_ON_EXEC = os.O_CLOEXEC


class _Setting(ctypes.Structure):
    """struct itimerspec."""

    _fields_ = (
        ("interval_s", ctypes.c_long),
        ("interval_ns", ctypes.c_long),
        ("s", ctypes.c_long),
        ("ns", ctypes.c_long),
    )


class Timer:
    """Calls back at a moment of time.monotonic(), once for each `at`. Raises OSError where there is none."""

    def __init__(self, callback: Callable[[], None]) -> None:
        self._callback = callback
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._setting = _Setting()
        self._file = self._libc.timerfd_create(_CLOCK_MONOTONIC, _NONBLOCK | _CLOSE_ON_EXEC)
        if self._file < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._file, self._due)

    def at(self, moment: float) -> None:
        """Call back then, or at once when it has passed; what was set before is forgotten."""
        setting = self._setting
        setting.s = int(moment)
        setting.ns = max(int((moment - setting.s) * 1e9), 1)  # all zeros would switch it off
        self._libc.timerfd_settime(self._file, _ABSOLUTE, ctypes.byref(setting), None)

    def close(self) -> None:
        """No more calls."""
        if self._file >= 0:
            self._loop.remove_reader(self._file)
            os.close(self._file)
            self._file = -1

    def _due(self) -> None:
        try:
            os.read(self._file, 8)
        except BlockingIOError:  # it was set anew after it had fired
            return
        self._callback()
