"""Diffusion: SDE, denoisers, losses, schedules and samplers. Knows no network: a denoiser is a callable."""
