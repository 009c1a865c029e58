"""Decoding of latents to features."""

import torch

from imder_course.decoding import Decoder, image
from imder_lib import IMDer, ModelConfig, load_data
from imder_lib.config import FusionConfig
from imder_lib.model.recovery import encode_split


def test_images_are_reconstructed_from_latents():
    data = load_data("digits")
    model = IMDer(ModelConfig(data.widths, fusion=FusionConfig(layers=1, outputs=10)), seed=1)
    split = data.test.first(20)
    back = Decoder(model, data.steps)(encode_split(model, split))
    found = image({m: x.numpy() for m, x in back.items()})
    assert abs(found - image(split.features)).max() < 1e-3


def test_leading_axes_and_models_without_encoders():
    model = IMDer(ModelConfig({"a": 5, "b": 4}, fusion=FusionConfig(layers=1)), seed=1)
    x = {"a": torch.randn(6, 7, 5), "b": torch.randn(6, 7, 4)}
    latents = {m: z.unflatten(0, (2, 3)) for m, z in model.encode(x).items()}
    back = Decoder(model, 7)(latents)
    assert back["b"].shape == (2, 3, 7, 4)
    torch.testing.assert_close(back["b"].flatten(0, 1), x["b"], atol=1e-3, rtol=1e-3)
    bare = IMDer(ModelConfig({"a": 32, "b": 32}, fusion=FusionConfig(layers=1)), seed=1)
    z = {"a": torch.randn(2, 32, 5)}
    assert torch.equal(Decoder(bare, 5)(z)["a"], z["a"].transpose(1, 2))
