"""The cache of recovered latents, and the stage that trains fusion on it."""

import torch
from conftest import WIDTHS, tiny_model

from imder_lib import changed, load_data
from imder_lib.experiment import stages
from imder_lib.experiment.metrics import mean_prediction, task_loss
from imder_lib.experiment.recovered_cache import RecoveredCache, fill_cache
from imder_lib.experiment.stages import adapt_stage, fusion_stage
from imder_lib.model.imder import IMDer
from imder_lib.model.recovery import encode_split


def filled(data, recoverer="diffusion", **switches):
    model = tiny_model(recoverer=recoverer, **switches).eval()
    latents = encode_split(model, data.train)
    model.recoverer.prepare(latents)
    return latents, fill_cache(model, latents, data.train.ids, 2, seed=1)


def test_stochastic_recoverers_have_two_draws_per_pattern(data):
    latents, cache = filled(data)
    assert cache.available.shape[1] == 2
    for i, m in enumerate(latents):
        available = cache.available[..., i]
        assert cache.recovered[m].shape == (2, len(data.train), 2, *latents[m].shape[1:])
        assert bool((cache.recovered[m][:, available] == 0).all())
        first, second = cache.recovered[m][:, ~available]
        assert bool((first != second).flatten(1).any(dim=1).all())
    assert len(filled(data, "regression")[1].recovered["text"]) == 1


def test_adapt_uses_the_mean_prediction_over_draws(tiny_config, monkeypatch):
    """For a linear fusion, noise of opposite sign in two draws cancels; the error of a single draw is larger."""
    data = load_data("gaussian", sizes={"train": 60, "valid": 20, "test": 8}, widths=WIDTHS, steps=4)
    model = tiny_model(WIDTHS, recoverer="regression")
    config = changed(model.config, encoders="components", fusion={"readout": True}, unet={"channels": (32,)})
    model = IMDer(config, seed=0).eval()
    fusion_stage(model, data, tiny_config).initialise()
    assert model.fusion.readout.linear.weight.any()  # the ridge regression, not the network

    def truth_and_noise(model, latents, ids, *_):
        pattern = torch.tensor([False, True, True]).expand(len(ids), 1, 3)
        noise = {m: 5 * torch.randn(x.shape, generator=torch.Generator().manual_seed(0)) for m, x in latents.items()}
        recovered = {m: torch.stack([x + noise[m], x - noise[m]])[:, :, None] for m, x in latents.items()}
        return RecoveredCache(pattern, recovered)

    monkeypatch.setattr(stages, "fill_cache", truth_and_noise)
    stage = adapt_stage(model, data, tiny_config)
    model.eval()
    latents, labels = encode_split(model, data.valid), torch.from_numpy(data.valid.labels)[:, None]
    with torch.no_grad():
        losses = stage.validate()
        expected = task_loss(model.fusion(latents)[0], labels, "none").flatten()
        one = {m: x[0, :, 0] for m, x in truth_and_noise(model, latents, data.valid.ids).recovered.items()}
        alone = task_loss(model.fusion(latents | {"text": one["text"]})[0], labels)
    torch.testing.assert_close(losses, expected.double(), atol=1e-5, rtol=1e-5)
    assert alone > 2 * expected.mean()


def test_adapt_trains_on_some_patterns_and_validates_on_all(data, tiny_config, monkeypatch):
    caches = []
    monkeypatch.setattr(stages, "fill_cache", lambda *args: caches.append(fill_cache(*args)) or caches[-1])
    adapt_stage(tiny_model(recoverer="regression"), data, changed(tiny_config, adapt={"patterns": 1}))
    assert [cache.available.shape for cache in caches] == [(len(data.train), 1, 3), (len(data.valid), 6, 3)]
    assert len(caches[1].available[0].unique(dim=0)) == 6  # no pattern twice


def test_the_mean_prediction_of_classes_averages_probabilities():
    logits = torch.randn(3, 5, 4, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(mean_prediction(logits).softmax(dim=-1), logits.softmax(dim=-1).mean(dim=0))
    torch.testing.assert_close(mean_prediction(logits[..., :1]), logits[..., :1].mean(dim=0))
