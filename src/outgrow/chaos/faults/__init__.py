"""FAULTS: one small file each. What is injected is undone, whatever happens (fault.py)."""
