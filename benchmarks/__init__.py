"""Benchmarks: ratios between versions measured in one run. `python -m benchmarks --help`."""
