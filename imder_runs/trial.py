"""A trial of a user's recoverer on random latents, before a sweep trains anything."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from imder_lib.config import ModelConfig
from imder_lib.data.missing import available_columns, patterns
from imder_lib.diffusion.noise import SampleNoise
from imder_lib.errors import UserError
from imder_lib.model.recoverers import make_recoverer
from imder_lib.model.recovery import Latents, Recoverer
from imder_lib.settings import changed

SAMPLES, CALLS = 256, 5  # samples, and network calls of a draw, at most
CLOSE = 0.02  # relative difference of equal draws: batches of another size are rounded in other ways


def try_recoverer(config: ModelConfig, samples: int, steps: int) -> None:
    """Prepare, use, save, load and train a recoverer on random latents, as a sweep does, on the CPU.

    Args:
        config: of the model.
        samples, steps: training samples and T of the data.

    Raises:
        UserError: it does not keep the contract of :class:`Recoverer`. Other errors are those of its code.
    """
    generator = torch.Generator().manual_seed(0)
    table = available_columns(patterns(config.modalities), config.modalities)  # the last row is complete
    config = changed(config, sampler={"steps": min(config.sampler.steps, CALLS)})
    latents = {m: _random((max(min(samples, SAMPLES), len(table)), config.dim, steps), generator)
               for m in config.modalities}  # fmt: skip
    part, ids = {m: x[: len(table)] for m, x in latents.items()}, [str(i) for i in range(len(table))]

    def draws(recoverer: Recoverer, rows: slice = slice(None)) -> Latents:
        noise = SampleNoise(0, ids[rows], "try")
        return recoverer.recover({m: x[rows] for m, x in part.items()}, table[rows], noise, draws=2)

    recoverer = make_recoverer(config)
    if not isinstance(recoverer, Recoverer):
        raise UserError(f"expected a subclass of Recoverer, got {type(recoverer).__name__}")
    initial = {name for name, _ in recoverer.named_parameters()}
    recoverer.eval().prepare(latents)
    _check_output(recoverer, part, table, SampleNoise(0, ids, "try"))
    first = draws(recoverer)
    if not _same(first, draws(recoverer)):
        raise UserError("it draws other numbers from the same noise: take all of them from normal(x, noise)")
    for row in range(len(table)):
        one = slice(row, row + 1)
        if not _same({m: x[:, one] for m, x in first.items()}, draws(recoverer, one)):
            raise UserError("what it draws for a sample depends on the other samples of the batch, which are arbitrary")
    differ = not _same({m: x[0] for m, x in first.items()}, {m: x[1] for m, x in first.items()})
    if differ != recoverer.stochastic and (differ or not initial):  # an untrained net may draw nothing yet
        raise UserError(f"its draws {'differ' if differ else 'are equal'}: set stochastic = {differ}")
    trained = type(recoverer).losses is not Recoverer.losses
    if trained and (not initial or initial != {name for name, _ in recoverer.named_parameters()}):
        raise UserError("losses train the parameters of __init__ alone: make all networks there and none in prepare, "
                        "several in an nn.ModuleDict")  # fmt: skip
    _try_loading(recoverer, make_recoverer(config).eval(), first, draws)
    if trained:
        _try_training(recoverer, part, table, generator)


def _random(shape: tuple[int, int, int], generator: torch.Generator) -> Tensor:
    """Numbers (N, D, T) with a mean and a scale of their own in each channel, as latents have."""
    mean, scale = torch.randn(2, shape[1], 1, generator=generator)
    return 3 * mean + (0.5 + scale.abs()) * torch.randn(shape, generator=generator)


def _check_output(recoverer: Recoverer, part: Latents, table: Tensor, noise: SampleNoise) -> None:
    """Call forward as a test does: with zeros where a modality is missing."""
    seen = {m: x * table[:, i, None, None] for i, (m, x) in enumerate(part.items())}
    with torch.no_grad():
        out = recoverer({m: x.clone() for m, x in seen.items()}, table, noise)
    if not isinstance(out, Mapping) or out.keys() != part.keys():
        got = list(out) if isinstance(out, Mapping) else type(out).__name__
        raise UserError(f"forward must return modality -> (B, D, T) for {list(part)}, got {got}")
    for i, (m, x) in enumerate(seen.items()):
        if out[m].shape != x.shape:
            raise UserError(f"forward must return {m} with shape {tuple(x.shape)}, got {tuple(out[m].shape)}")
        if not torch.isfinite(out[m]).all():
            raise UserError(f"forward returns numbers for {m} that are not finite")
        if not torch.equal(out[m][table[:, i]].to(x), x[table[:, i]]):
            raise UserError(f"forward changes {m} where it is available: return self.fill(...)")


def _same(a: Latents, b: Latents) -> bool:
    """Whether latents (..., D, T) are equal up to rounding, for each row and modality, beside their spread."""
    return all(((a[m] - b[m]).norm(dim=(-2, -1)) <= CLOSE * a[m].norm(dim=(-2, -1))).all() for m in a)


def _try_training(recoverer: Recoverer, part: Latents, table: Tensor, generator: torch.Generator) -> None:
    """Compute losses as training and validation do, also of a batch in which nothing is missing."""
    for training in (True, False):
        for available in (table, torch.ones_like(table)):
            with torch.set_grad_enabled(training):
                found = recoverer.train(training).losses(part, available, generator, torch.ones_like(table))
            if not isinstance(found, Mapping) or found.keys() != part.keys():
                raise UserError(f"losses must return modality -> scalar for {list(part)}")
            total = torch.as_tensor(sum(found.values()))
            if total.dim() or not torch.isfinite(total):
                missing = "" if available is table else " if nothing is missing: return 0 there"
                raise UserError(f"the sum of losses must be a finite number, got {total}{missing}")
            if training and available is table and not total.requires_grad:
                raise UserError("losses have no gradient, so nothing would be trained")


def _try_loading(recoverer: Recoverer, other: Recoverer, first: Latents, draws: Callable[[Recoverer], Latents]) -> None:
    """A model that is loaded, or whose training is resumed, has what the state dict has, and nothing else."""
    advice = "register all that prepare computes in __init__, as buffers with their final shape"
    try:
        other.load_state_dict(recoverer.state_dict())
        again = draws(other)
    except Exception as error:
        reason = str(error).splitlines()[-1].strip()
        raise UserError(f"once saved, it cannot be loaded and used ({reason:.150}): {advice}") from None
    if not _same(first, again):
        raise UserError(f"once saved and loaded, it draws other numbers: {advice}")
