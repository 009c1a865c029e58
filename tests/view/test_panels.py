"""Panels: a moved control changes the figure, what cannot be says why, nothing is computed twice or left behind."""

import base64
import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import tiny_model

from imder_lib import IMDer, UserError, evaluate
from imder_lib.data.missing import RATES
from imder_lib.experiment.stages import prepare
from imder_lib.model.recovery import encode_split
from imder_lib.view.diagram import framework
from imder_lib.view.panels import MissingRatePanel, RecoveryPanel


@pytest.fixture(scope="module")
def trained(data):
    model = tiny_model().eval()
    prepare(model, encode_split(model, data.train), torch.ones(len(data.train), 3, dtype=torch.bool))
    with torch.no_grad():  # an untrained net's output is zero: give it one, so that guidance shows
        model.recoverer.net.out.weight.normal_(0, 0.1, generator=torch.Generator().manual_seed(0))
    return model


@pytest.fixture
def panel(trained, data):
    panel = RecoveryPanel(trained, data.test, "text")
    yield panel
    panel.close()


def png(panel):
    return base64.b64decode(re.search('base64,([^"]+)', panel.picture.value)[1])


CHANGES = {"sample": 3, "audio": False, "level": 5.0, "sampler": "heun", "steps": 5, "draws": 2, "guidance": 2.0}


@pytest.mark.parametrize("name", CHANGES)
def test_every_control_changes_the_figure(panel, name):
    before = png(panel)
    assert before.startswith(b"\x89PNG")
    panel.controls[name].value = CHANGES[name]
    assert png(panel) != before
    assert panel.message.value == ""


def test_what_cannot_be_keeps_the_figure_and_says_why(panel):
    before = png(panel)
    panel.controls["text"].value = True
    assert png(panel) == before
    assert "drop one" in panel.message.value
    for m in ("text", "audio", "vision"):
        panel.controls[m].value = False
    assert "must stay" in panel.message.value
    panel.controls["vision"].value = True
    assert panel.message.value == ""
    assert panel.missing == ["text", "audio"]


def test_a_look_at_another_noise_level_does_not_draw_again(panel, monkeypatch):
    monkeypatch.setattr(panel, "_draw_trajectory", lambda: pytest.fail("drawn again"))
    panel.controls["level"].value = 0.5


def test_the_panel_never_changes_the_model_and_shows_its_draws(panel, trained, data):
    rules = trained.config.rules
    panel.controls["guidance"].value, panel.controls["sampler"].value = 3.0, "em"
    assert trained.recoverer.config.rules == rules
    panel.controls["draws"].value = 8
    seen = panel.seen()
    assert seen.prediction.shape == (8,)
    assert seen.trajectories.shape == (8, len(seen.levels))
    assert seen.label == data.test.labels[0]
    assert (np.diff(seen.levels) < 0).all()


def test_headless_it_is_a_picture_with_its_caption(panel, monkeypatch):
    monkeypatch.setenv("IMDER_HEADLESS", "1")
    saved = []
    panel.show(lambda *given: saved.append(given), "name", "A <caption>")
    assert saved[0][1:] == ("name", "A <caption>")
    panel.refresh()
    assert 'alt="A &lt;caption&gt;"' in panel.picture.value


def test_close_takes_every_widget_away(trained, data):
    panel = RecoveryPanel(trained, data.test, "text")
    widgets = [*panel.controls.values(), *panel.box.children, panel.box]
    assert all(w.comm is not None for w in widgets)
    panel.close()
    assert all(w.comm is None and w.layout.comm is None for w in widgets)


def test_models_without_a_trajectory_and_unknown_modalities_are_refused(trained, data):
    with pytest.raises(UserError, match="net 'joint'"):
        RecoveryPanel(tiny_model(preset="released"), data.test, "text")
    with pytest.raises(UserError, match="missing must be one of"):
        RecoveryPanel(trained, data.test, "gesture")


def test_classes_and_pictures(data):
    model = IMDer(replace(tiny_model().config, outputs=4), seed=0).eval()
    prepare(model, encode_split(model, data.train), torch.ones(len(data.train), 3, dtype=torch.bool))
    asked = []
    panel = RecoveryPanel(model, data.test, "text", lambda one: asked.append(set(one)) or np.zeros((2, 2)))
    seen = panel.seen()
    np.testing.assert_allclose(seen.prediction.sum(axis=1), 1, rtol=1e-5)
    assert {"audio", "vision"} in asked  # the picture of what is given
    assert list(seen.pictures)[:2] == ["true", "given"]
    panel.close()


def test_missing_rate_panel(trained, data):
    table = evaluate(trained, data.test, ["random"], [1])
    panel = MissingRatePanel(table, ["mae", "corr"])
    assert panel.controls["rate"].options == RATES
    for name, value in {"rate": 0.7, "metric": "corr", "zero": False}.items():
        before = png(panel)
        panel.controls[name].value = value
        assert png(panel) != before
    for m in panel.methods:
        panel.controls[m].value = False
    assert "at least" in panel.message.value
    panel.close()
    with pytest.raises(UserError, match="no rows of protocol 'random'"):
        MissingRatePanel(pd.DataFrame({"protocol": ["fixed"]}), ["mae"])


def test_the_framework_names_what_is_missing():
    words = " ".join(t.get_text() for t in framework(missing="vision").axes[0].texts)
    assert "vision\nmissing" in words
    assert words.count("condition") == 3  # of two modalities, and in the denoiser's name
