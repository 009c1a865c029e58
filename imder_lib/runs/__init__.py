"""Runs: notebooks without a screen, and the report they end in."""
