"""Runs: execution of notebooks, the paper's grid, tables and the report."""
