"""Diffusion: SDE, denoisers, losses, schedules and samplers. They do not depend on the networks."""
