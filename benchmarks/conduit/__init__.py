"""examples/conduit as it is, with the benchmark's data in its tables."""
