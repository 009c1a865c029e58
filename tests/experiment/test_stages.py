"""The stages of the recipes: their masks, patterns and the weights of their losses."""

from collections import Counter

import pytest
import torch
from conftest import tiny_model

from imder_lib import changed
from imder_lib.data.missing import available_columns, patterns, realised_rate
from imder_lib.experiment import stages
from imder_lib.experiment.metrics import task_loss
from imder_lib.model.recovery import encode_split


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(("rate", "share"), [(0.3, 0.3), (0.7, 2 / 3)])
def test_masks_of_the_released_recipe_have_its_rate(rate, share, data, tiny_config):
    """In training they are drawn for each epoch; those of validation stay. Batches of one: the rule counts batches."""
    model, seen = tiny_model(recoverer="zero").eval(), []
    stage = stages.joint_stage(model, data, changed(tiny_config, recipe="released", rate=rate, batch_size=1))
    generator = seeded()
    masks = [stage.masks(generator) for _ in range(2)]
    assert masks[0].shape == (len(data.train), 3)
    assert [realised_rate(m) for m in masks] == pytest.approx([share] * 2, abs=0.04)
    assert not torch.equal(*masks)
    model.register_forward_pre_hook(lambda net, args: seen.append(args[1]))
    with torch.no_grad():
        assert torch.equal(stage.validate(), stage.validate())
    valid = torch.cat(seen).reshape(2, len(data.valid), 3)
    assert torch.equal(*valid)
    assert realised_rate(valid) == pytest.approx(share, abs=0.08)  # the rule rounds 16 batches to 20


def test_other_losses_count_a_tenth_of_the_loss_of_the_prediction(data, tiny_config, monkeypatch):
    """As in the release, in its joint training and in stage adapt."""
    model, rows = tiny_model(preset="released").eval(), torch.arange(12)
    mask = torch.tensor([[True, False, True]]).expand(12, 3)
    joint = stages.joint_stage(model, data, changed(tiny_config, recipe="released"))
    batch = data.train.batch(range(12))
    out = model(batch.features, mask, with_losses=True, generator=seeded(), lengths=batch.lengths)
    expected = task_loss(out.prediction, batch.labels) + 0.1 * sum(out.losses.values())
    assert sum(out.losses.values()) > 0.1
    torch.testing.assert_close(joint.loss(rows, seeded(), mask), expected)
    adapt, found = stages.adapt_stage(model, data, tiny_config), {}
    for weight in (stages.LOSS_WEIGHT, 0.0, 1.0):
        monkeypatch.setattr(stages, "LOSS_WEIGHT", weight)
        found[weight] = adapt.loss(rows, seeded(), None).item()
    refine = found.pop(1.0) - found[0.0]
    assert refine > 0.01
    assert found == pytest.approx({0.1: found[0.0] + 0.1 * refine, 0.0: found[0.0]})


def test_adapt_sees_all_patterns_equally_often(data, tiny_config, monkeypatch):
    model, seen = tiny_model(recoverer="regression").eval(), []
    model.recoverer.prepare(encode_split(model, data.train))
    stage, original = stages.adapt_stage(model, data, changed(tiny_config, adapt={"patterns": 0})), model.refined
    monkeypatch.setattr(model, "refined", lambda x, available: seen.append(available) or original(x, available))
    generator = seeded()
    with torch.no_grad():
        for _ in range(10):
            stage.loss(torch.arange(len(data.train)), generator, None)
        found = stage.validate()
    count = Counter(tuple(row) for row in torch.cat(seen[:10]).tolist())
    assert len(count) == 7
    assert all(40 < n < 100 for n in count.values())  # 480 / 7 = 69, and a standard deviation of 8
    losses, latents = [], encode_split(model, data.valid)
    for row in available_columns(patterns(model.modalities), model.modalities):
        mask = row.expand(len(data.valid), -1)
        predicted = model.predict(model.recover(latents, mask), mask)[0]
        losses.append(task_loss(predicted, torch.from_numpy(data.valid.labels)[:, None], "none").flatten())
    assert len(losses) == 7
    torch.testing.assert_close(found, torch.stack(losses).mean(dim=0).double(), atol=1e-5, rtol=1e-4)
