"""Runs: commands, notebooks, the paper's grid, tables and the report."""
