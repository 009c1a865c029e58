"""Experiments: training, checkpoints, evaluation and metrics."""
