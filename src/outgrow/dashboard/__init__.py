"""The one read model of a running fleet, and the page that shows it.

gather.py   each second: the fleet's status, every process's figures, this machine  ─► snapshot.py
app.py      serves the page, the snapshots (stream.py), history, requests and logs, to this machine alone
"""
