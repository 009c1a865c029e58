"""The plain loop trains the recoverer and nothing else, and one seed gives one result."""

import torch
from conftest import tiny_model

from imder_course.plain_training import train_recoverer
from imder_lib.model.recovery import encode_split


def test_only_the_recoverer_learns_and_the_seed_decides(data):
    before, pattern = tiny_model().state_dict(), torch.tensor([[False, True, True]])
    latents = encode_split(tiny_model(), data.train)
    one, same, other = (train_recoverer(tiny_model(), latents, pattern, 2, s).state_dict() for s in (1, 1, 2))
    assert all(torch.equal(one[k], same[k]) for k in one)
    assert not all(torch.equal(one[k], other[k]) for k in one)
    assert all(torch.equal(one[k], x) for k, x in before.items() if not k.startswith("recoverer."))
