"""IMDer's forward pass: shapes, per-sample masks, short sequences, bad input."""

from dataclasses import replace

import pytest
import torch
from conftest import WIDTHS, tiny_model

from imder_lib import IMDer, UserError
from imder_lib.diffusion.noise import SampleNoise
from imder_lib.diffusion.samplers import Sampler
from imder_lib.nets.score_net import ScoreNet


def features(B=6, T=10):
    g = torch.Generator().manual_seed(0)
    return {m: torch.randn(B, T, D, generator=g) for m, D in WIDTHS.items()}


MIXED = torch.tensor([[1, 1, 1], [1, 0, 0], [0, 1, 0], [0, 1, 1], [1, 0, 1], [0, 0, 1]], dtype=torch.bool)


@pytest.mark.parametrize("encoders", ["learned", "components"])
@pytest.mark.parametrize("T", [1, 2, 3, 10, 13])
def test_shapes_for_any_length(T, encoders):
    out = IMDer(replace(tiny_model().config, encoders=encoders))(features(T=T), MIXED, with_losses=True)
    steps = T - 2 if T >= 3 and encoders == "learned" else T
    assert out.prediction.shape == (6, 1)
    for m in WIDTHS:
        assert out.latents[m].shape == out.recovered[m].shape == (6, 16, steps)
        assert out.vectors[m].shape == (6, 32)
        assert out.losses[f"score.{m}"] > 0
        assert out.losses[f"refine.{m}"] > 0


def test_a_mixed_batch_equals_single_samples():
    """The prediction of a sample does not depend on the other samples of its batch."""
    model, x, ids = tiny_model().eval(), features(), [f"s{i}" for i in range(6)]
    with torch.no_grad():
        together = model(x, MIXED, generator=SampleNoise(1, ids)).prediction
        for i in range(6):
            one = {m: v[i : i + 1] for m, v in x.items()}
            alone = model(one, MIXED[i : i + 1], generator=SampleNoise(1, ids[i : i + 1])).prediction
            torch.testing.assert_close(alone[0], together[i], rtol=1e-4, atol=1e-5)


def test_available_latents_are_unchanged():
    model = tiny_model().eval()
    x = features()
    out, true = model(x, MIXED), model.encode(x)
    for i, m in enumerate(WIDTHS):
        assert torch.equal(out.latents[m][MIXED[:, i]], true[m][MIXED[:, i]])
        assert not torch.equal(out.latents[m][~MIXED[:, i]], true[m][~MIXED[:, i]])


@pytest.mark.parametrize("T", [1, 5, 8, 48])
def test_score_net_pads_and_crops(T):
    net = ScoreNet((32, 64, 128, 256)).eval()
    x = torch.randn(2, 32, T)
    assert net(x, torch.rand(2), x).shape == x.shape


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x, a: (x, a[:, :2]), r"bool \(6, 3\)"),
        (lambda x, a: (x, a.float()), "float32"),
        (lambda x, a: (x, a & False), "row 0"),
        (lambda x, a: ({k: x[k] for k in ("text", "audio")}, a), "vision"),
        (lambda x, a: (x | {"audio": x["audio"][:, :7]}, a), "common T"),
    ],
)
def test_bad_input(change, message):
    with pytest.raises(UserError, match=message):
        tiny_model()(*change(features(), MIXED))


def test_too_few_steps():
    with pytest.raises(UserError, match="steps"):
        tiny_model(preset="released")(features(), MIXED, sampler=Sampler("em", 1, "released"))
