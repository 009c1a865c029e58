"""GIFs: frames of equal size, with the last one repeated."""

import runpy

import numpy as np
import pytest
from PIL import Image

from imder_course.style import use_style
from tools import animations
from tools.animations import HOLD, cloud_gif, digits_gif


def test_frames_have_one_layout(tmp_path):
    use_style()
    rng, levels = np.random.default_rng(0), [5.0, 1.0, 0.0]
    cloud_gif(
        [s * rng.standard_normal((20, 2)) for s in (5, 2, 1)], levels, rng.standard_normal((30, 2)), tmp_path / "a.gif"
    )
    trajectory = [np.clip(s * rng.standard_normal((2, 8, 8)), -1, 1) for s in (5, 1, 0.5)]
    digits_gif(trajectory, levels, trajectory[-1], tmp_path / "b.gif")
    for name in ("a", "b"):
        gif = Image.open(tmp_path / f"{name}.gif")
        first, total = np.array(gif.convert("L"), float), 0
        for k in range(gif.n_frames):
            gif.seek(k)
            total += gif.info["duration"]
        last = np.array(gif.convert("L"), float)
        assert total == (3 + HOLD) * 100  # ms
        assert first.shape == last.shape
        still = np.abs(first - last)[-8:]  # at the lower edge, no axis has moved
        assert still.max() < 60


def test_without_a_folder_the_usage_is_shown(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["animations"])
    with pytest.raises(SystemExit):
        runpy.run_path(animations.__file__, run_name="__main__")
    assert "folder" in capsys.readouterr().err
