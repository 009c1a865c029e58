"""Panels: effect of the controls, error messages, and recomputation."""

import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import WIDTHS, tiny_model

from imder_course.diagram import framework
from imder_course.panels import MissingRatePanel, RecoveryPanel
from imder_lib import IMDer, UserError, changed, evaluate
from imder_lib.data.missing import RATES
from imder_lib.model.recovery import encode_split


@pytest.fixture(scope="module")
def trained(data):
    model = tiny_model().eval()
    model.recoverer.prepare(encode_split(model, data.train))
    with torch.no_grad():  # the output of an untrained net is zero, which would hide guidance
        model.recoverer.net.out.weight.normal_(0, 0.1, generator=torch.Generator().manual_seed(0))
    return model


@pytest.fixture
def panel(trained, data):
    panel = RecoveryPanel(trained, data.test, "text")
    panel.refresh()
    return panel


def parts(panel):
    """Contents of the figure of a RecoveryPanel, by name."""
    *pictures, density, trajectory, answer = panel.figure().axes
    *lines, true, level = trajectory.lines
    names = [axis.get_title() or axis.get_title("left") for axis in pictures]
    shown = {
        f"picture {name.split(' at')[0]}": axis.images[0].get_array()
        for name, axis in zip(names, pictures, strict=True)
    }
    return shown | {
        "true density": density.patches[0].get_data().values,
        "density": density.patches[1].get_data().values,
        "trajectories": np.array([line.get_ydata() for line in lines]),
        "levels": lines[0].get_xdata(),
        "true entry": np.array(true.get_ydata()),
        "level": np.array(level.get_xdata()),
        "predictions": np.array(answer.lines[0].get_xdata()),
        "label": np.array(answer.lines[2].get_xdata()),
    }


def differs(before, after):
    return {name for name in before if not np.array_equal(before[name], after[name])}


TRUTH = {"picture true", "true density", "true entry", "label"}
DRAWN = {"picture draw", "picture the draw", "picture mean of the draws", "density", "trajectories", "predictions"}


@pytest.mark.parametrize(
    ("name", "value", "must", "may"),
    [
        ("sample", 3, TRUTH | DRAWN, set()),
        ("audio", False, DRAWN, {"true entry"}),  # another entry may be shown
        ("level", 5.0, {"picture draw", "density", "level"}, set()),
        ("sampler", "heun", DRAWN - {"density"}, {"density", "picture draw", "true entry", "levels", "level"}),
        ("steps", 5, DRAWN | {"levels", "level"}, {"true entry"}),
        ("draws", 2, {"density", "trajectories", "predictions", "picture mean of the draws"}, {"true entry"}),
        ("guidance", 2.0, DRAWN, {"true entry"}),
    ],
)
def test_each_control_changes_its_parts_of_the_figure(panel, name, value, must, may):
    before, picture = parts(panel), panel.picture.value
    panel.controls[name].value = value
    assert must <= differs(before, parts(panel)) <= must | may
    assert panel.picture.value != picture
    assert panel.message.value == ""


def test_the_figure_is_a_png(panel):
    assert re.search('src="data:image/png;base64,iVBORw0KGgo', panel.picture.value)


def test_invalid_values_keep_the_figure_and_show_a_message(panel, capsys):
    before = panel.picture.value
    panel.controls["text"].value = True
    assert panel.picture.value == before
    assert "must be missing" in panel.message.value
    for m in ("text", "audio", "vision"):
        panel.controls[m].value = False
    assert "must be available" in panel.message.value
    panel.controls["vision"].value = True
    assert panel.message.value == ""
    assert panel.missing == ["text", "audio"]
    assert capsys.readouterr().err == ""


def test_an_unexpected_error_is_shown_in_one_line_and_logged_with_a_traceback(panel, monkeypatch, capsys):
    before = panel.picture.value

    def fail(*_):
        raise ValueError("a <bad> shape\nand more")

    monkeypatch.setattr(panel, "_trajectory", fail)
    panel.controls["draws"].value = 2
    assert panel.message.value == "<b>ValueError: a &lt;bad&gt; shape</b>"
    assert panel.picture.value == before
    log = capsys.readouterr().err
    assert "Traceback" in log
    assert "in fail" in log
    monkeypatch.undo()
    panel.controls["draws"].value = 3
    assert panel.message.value == ""


def test_another_noise_level_does_not_recover_again(panel, monkeypatch):
    monkeypatch.setattr(panel, "_trajectory", lambda *_: pytest.fail("recovered again"))
    panel.controls["level"].value = 0.5
    assert panel.message.value == ""


def test_the_panel_shows_draws_and_does_not_change_the_model(panel, trained, data):
    config = trained.config
    panel.controls["guidance"].value, panel.controls["sampler"].value = 3.0, "em"
    assert trained.recoverer.config == config
    panel.controls["draws"].value = 8
    shown = parts(panel)
    np.testing.assert_array_equal(shown["predictions"], panel.prediction)
    assert shown["trajectories"].shape == (8, len(panel.path))
    assert shown["label"][0] == data.test.labels[0]
    assert (np.diff([sigma for sigma, *_ in panel.path]) < 0).all()


@pytest.mark.parametrize("live", [True, False])
def test_a_live_panel_is_shown_and_another_is_saved_as_a_figure(trained, data, live, monkeypatch):
    panel, saved, shown = RecoveryPanel(trained, data.test, "text"), [], []
    monkeypatch.setattr("imder_course.panels.display", shown.append)
    panel.show(lambda *given: saved.append(given), "name", "A <caption>", live)
    if live:
        assert saved == []
        assert panel.picture in shown[0].children
        assert 'alt="A &lt;caption&gt;"' in panel.picture.value
        grid, ticks = shown[0].children[:2]
        assert {*grid.children, *ticks.children} == {*panel.controls.values()}
    else:
        assert shown == []
        assert saved[0][1:] == ("name", "A <caption>")
        assert len(saved[0][0].axes) == 7  # four pictures and three axes


def test_other_nets_and_unknown_modalities_raise(trained, data):
    with pytest.raises(UserError, match="net 'joint'"):
        RecoveryPanel(tiny_model(preset="released"), data.test, "text")
    with pytest.raises(UserError, match="missing must be one of"):
        RecoveryPanel(trained, data.test, "gesture")


def test_a_modality_may_have_the_name_of_a_control(data, monkeypatch):
    names = {"text": "steps", "audio": "sample", "vision": "vision"}
    model = tiny_model({names[m]: width for m, width in WIDTHS.items()}).eval()
    split = replace(data.test, features={names[m]: x for m, x in data.test.features.items()})
    model.recoverer.prepare(encode_split(model, split))
    panel = RecoveryPanel(model, split, "steps")
    monkeypatch.setattr(panel, "refresh", lambda: None)  # one figure is enough
    for name, value in {"sample": 2, "steps": 5, "sample available": False}.items():
        panel.controls[name].value = value
    panel.figure()
    assert panel.missing == ["steps", "sample"]
    assert len(panel.path) == 5 + 1
    assert panel.ticks["vision"] is panel.controls["vision"]


def test_classes_and_pictures(data):
    model = IMDer(changed(tiny_model().config, fusion={"outputs": 4}), seed=0).eval()
    model.recoverer.prepare(encode_split(model, data.train))
    asked = []
    panel = RecoveryPanel(model, data.test, "text", lambda one: asked.append(set(one)) or np.zeros((2, 2)))
    figure = panel.figure()
    np.testing.assert_allclose(panel.prediction.sum(axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose([b.get_height() for b in figure.axes[-1].patches], panel.prediction.mean(0), rtol=1e-5)
    assert {"audio", "vision"} in asked  # the picture of available modalities
    assert [axis.get_title() or axis.get_title("left") for axis in figure.axes[:2]] == ["true", "given"]


def test_missing_rate_panel(trained, data):
    table = evaluate(trained, data.test, ["random"], [1])
    panel = MissingRatePanel(table, ["mae", "corr"])
    assert panel.controls["rate"].options == RATES
    for name, value in {"rate": 0.7, "metric": "corr", "zero": False}.items():
        panel.controls[name].value = value
    lines, bars = panel.figure().axes
    shown = [m for m in panel.methods if m != "zero"]
    at = table[(table["rate"] == 0.7) & table["method"].isin(shown)].groupby("method")["corr"].mean().sort_values()
    np.testing.assert_allclose([bar.get_width() for bar in bars.patches], at)
    assert len(lines.lines) == len(shown) + 1  # and one for the rate
    assert lines.get_ylabel() == bars.get_xlabel() == "Corr (Pearson)"
    for m in panel.methods:
        panel.controls[m].value = False
    assert "at least" in panel.message.value
    with pytest.raises(UserError, match="no rows of protocol 'random'"):
        MissingRatePanel(pd.DataFrame({"protocol": ["fixed"]}), ["mae"])


def test_the_framework_marks_the_missing_modality():
    words = " ".join(t.get_text() for t in framework(missing="vision").axes[0].texts)
    assert "vision\nmissing" in words
    assert words.count("condition") == 3  # of two modalities, and in the denoiser's name
