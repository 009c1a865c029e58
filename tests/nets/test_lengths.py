"""Padding has no effect with mask_padding; lengths are ignored without it."""

from dataclasses import replace

import pytest
import torch
from conftest import WIDTHS, tiny_model

from imder_lib import IMDer
from imder_lib.diffusion.noise import SampleNoise
from imder_lib.nets.attention import Encoder
from imder_lib.nets.lengths import lengths_of, valid_steps

T, LENGTHS = 14, {"text": 9, "audio": 9, "vision": 9}


def with_lengths(preset="kit", seed=0) -> IMDer:
    model = IMDer(replace(tiny_model(preset=preset).config, mask_padding=True), seed=seed)
    model.load_state_dict(tiny_model(preset=preset, seed=seed).state_dict())
    return model.eval()


def features(lengths=LENGTHS, B=3):
    """Features with large random values in the padding."""
    g = torch.Generator().manual_seed(0)
    x = {m: torch.randn(B, T, D, generator=g) for m, D in WIDTHS.items()}
    for m, n in lengths.items():
        x[m][:, n:] = 50 * torch.randn(x[m][:, n:].shape)
    return x, {m: torch.full((B,), n) for m, n in lengths.items()}


COMPLETE = torch.ones(3, 3, dtype=torch.bool)


def test_a_padded_sample_equals_the_cropped_one():
    model, (x, lengths) = with_lengths(), features()
    cropped = model({m: v[:, :9] for m, v in x.items()}, COMPLETE)
    padded = model(x, COMPLETE, lengths=lengths)
    torch.testing.assert_close(padded.prediction, cropped.prediction)
    for m in WIDTHS:
        torch.testing.assert_close(padded.vectors[m], cropped.vectors[m])
        torch.testing.assert_close(padded.latents[m][..., :7], cropped.latents[m])
        assert (padded.latents[m][..., 7:] == 0).all()


def test_unequal_lengths_in_one_batch_equal_single_samples():
    model, (x, _) = with_lengths(), features({})
    lengths = {"text": torch.tensor([14, 5, 9]), "audio": torch.tensor([6, 14, 4]), "vision": torch.tensor([3, 1, 14])}
    together = model(x, COMPLETE, lengths=lengths).prediction
    for i in range(3):
        n = max(int(v[i]) for v in lengths.values())
        alone = model(
            {m: v[i : i + 1, :n] for m, v in x.items()},
            COMPLETE[:1],
            lengths={m: v[i : i + 1] for m, v in lengths.items()},
        )
        torch.testing.assert_close(alone.prediction[0], together[i])


def test_padding_is_not_attended_to():
    encoder = Encoder(16, 4, layers=2).eval()
    q, k = torch.randn(2, 6, 16), torch.randn(2, 6, 16)
    valid = torch.arange(6) < torch.tensor([[6], [3]])
    other = k.clone()
    other[1, 3:] = 9
    torch.testing.assert_close(encoder(q, k, valid), encoder(q, other, valid))
    assert not torch.allclose(encoder(q, k), encoder(q, other))
    torch.testing.assert_close(encoder(q, k, valid)[0], encoder(q, k)[0])  # at full length the mask has no effect


AVAILABLE = torch.tensor([[1, 0, 0], [0, 1, 1], [1, 1, 0]], dtype=torch.bool)


def test_recovered_latents_are_as_long_as_available_ones():
    model, (x, lengths) = with_lengths(), features({"text": 9, "audio": 6, "vision": 11})
    out = model(x, AVAILABLE, with_losses=True, generator=torch.Generator().manual_seed(0), lengths=lengths)
    n = lengths_of(out.latents)
    assert n["audio"].tolist() == [7, 4, 4]  # sample 0 has text only: 9 steps, 7 latents
    assert n["vision"].tolist() == [7, 9, 7]
    assert n["text"].tolist() == [7, 9, 7]
    torch.testing.assert_close(lengths_of(out.recovered), n)


@pytest.mark.parametrize("preset", ["kit", "released"])
def test_padding_does_not_change_recovery_or_losses(preset):
    model, (x, lengths) = with_lengths(preset), features()
    other = {m: torch.where(torch.arange(T)[:, None] < 9, v, -v) for m, v in x.items()}
    a, b = (
        model(y, AVAILABLE, with_losses=True, generator=torch.Generator().manual_seed(0), lengths=lengths)
        for y in (x, other)
    )
    torch.testing.assert_close(a.prediction, b.prediction)
    torch.testing.assert_close(a.losses, b.losses)


def test_the_score_loss_uses_valid_steps_only():
    model, (x, lengths) = with_lengths("released"), features({"text": 3, "audio": 3, "vision": 3})
    latents = model.encode(x, lengths)
    g = torch.Generator().manual_seed(0)
    one_step = model.recoverer.losses(latents, AVAILABLE, g)["audio"]  # one of twelve latent steps is valid
    g = torch.Generator().manual_seed(0)
    full = tiny_model(preset="released").eval().recoverer.losses(latents, AVAILABLE, g)["audio"]
    assert 0 < one_step < full / 4


def test_released_rules_ignore_lengths():
    model, (x, lengths) = tiny_model(preset="released").eval(), features()
    noise = [SampleNoise(1, ["a", "b", "c"]) for _ in range(2)]
    a, b = model(x, AVAILABLE, generator=noise[0]), model(x, AVAILABLE, generator=noise[1], lengths=lengths)
    assert torch.equal(a.prediction, b.prediction)


@pytest.mark.parametrize("T", [1, 2, 3])
def test_short_sequences(T):
    model, (x, _) = with_lengths(), features({})
    x = {m: v[:, :T] for m, v in x.items()}
    out = model(x, AVAILABLE, lengths={m: torch.ones(3, dtype=torch.long) for m in WIDTHS}, with_losses=True)
    assert torch.isfinite(out.prediction).all()


def test_lengths_of_latents():
    x = torch.ones(3, 2, 5) * valid_steps(torch.tensor([2, 5, 4]), 5)
    y = torch.ones(3, 2, 5) * valid_steps(torch.tensor([3, 1, 0]), 5)
    n = lengths_of({"x": x, "y": y})
    assert n["x"].tolist() == [2, 5, 4]
    assert n["y"].tolist() == [3, 1, 4]  # all zero: the length of the other


@pytest.mark.parametrize("other", [False, True])
def test_one_step_of_an_encoder_equals_that_step_of_all(other):
    g = torch.Generator().manual_seed(0)
    x, key = torch.randn(2, 5, 7, 16, generator=g)
    steps, valid = torch.tensor([0, 3, 6, 2, 5]), torch.arange(7) < torch.tensor([1, 4, 7, 7, 2])[:, None]
    encoder = Encoder(16, 4, layers=3).eval()
    for given in (None, valid):
        full = encoder(x, key if other else None, given)
        one = encoder(x, key if other else None, given, steps)
        torch.testing.assert_close(one[:, 0], full[torch.arange(5), steps], atol=1e-5, rtol=0)
