"""Diffusion: SDE, losses and samplers. Knows no network: a score is a callable (x, t, condition) -> score."""
