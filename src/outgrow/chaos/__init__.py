"""Drills: a fault on purpose, under load, and a verdict from what was recorded. docs/drills.md.

drills/NAME.py (what is done, what must hold)
     │ Scene                                     load/generator.py ─► every request ─┐
     └─► faults/*.py (inject, undo) ─► the fleet ─► watch.py ─► every change ────────┴─► history.py
                                                                                         │
                                       report.py, text.py, html.py ◄── verdict.py ◄──────┘
"""
