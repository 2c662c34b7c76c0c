"""Growing live: a difference of two topologies becomes steps, each safe to repeat after a crash at any line.

plan.py      which move leads from one topology to another
moves/       one change of topology a file: its steps
runner.py    apply, verify, check the invariant, journal; on failure undo; after a crash resume
journal.py   what is known after a crash; the lock; the audit line
pace.py      how fast, so that the application keeps its machine
data/        copying a database while it is written to
"""
