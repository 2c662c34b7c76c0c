"""`python -m outgrow.dashboard`: the dashboard of the fleet in OUTGROW_DIRECTORY."""

import signal

signal.pause()
