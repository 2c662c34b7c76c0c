"""Load: requests at a chosen rate, honestly timed, and answers that are checked. It speaks HTTP only.

    scenario file ─► parse.py ─► profile.py (frozen values)
                                    │
    schedule.py ─ when ─► generator.py ─► client.py ─► the application
    traffic.py ── what ──┘     │ intended, sent, answered, wrong
                               └─► recorder.py ─► report.py ─► text.py, html.py, JSON

Open loop: each request has a moment at which it is meant to start, whatever the application does, and
its latency counts from there. docs/load.md tells how to write a scenario and how to read a report.
"""
