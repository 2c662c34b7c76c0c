"""Outgrow."""
