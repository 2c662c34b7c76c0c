"""Envoy, the balancer of layers 4 and 7: its process, and what changes of it while it serves."""
