"""Runs workloads on this machine: starts them in order, keeps them alive, ends them, leaves nothing."""
