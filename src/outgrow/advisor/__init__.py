"""What the figures mean: measures read, kept for two hours, and later judged.

Knows nothing of a running fleet: whoever gathers (dashboard/gather.py) hands it texts and numbers.
"""
