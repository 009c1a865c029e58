"""Mistakes in a user's recoverer or sampler are said before anything is trained. The recoverer is that of the docs."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from imder_lib import UserError
from imder_lib.diffusion.samplers import SAMPLERS
from imder_lib.model.recoverers import RECOVERERS
from imder_lib.model.recovery import Recoverer
from imder_runs.comparison import COMPARED, compared_config
from imder_runs.extension import load_extension
from imder_runs.grid import Grid, plan
from imder_runs.setup import start_run
from imder_runs.trial import try_recoverer

PAGE = (Path(__file__).resolve().parents[2] / "docs/library.md").read_text(encoding="utf-8")
(MINE,) = re.findall(r"```python\n(\"\"\"mine.py.*?)```", PAGE, re.DOTALL)
RETURN = "return self.fill(latents, available, values)"
NOISY = f"noisy = {{m: normal(x, noise) for m, x in values.items()}}\n        {RETURN.replace('values', 'noisy')}"
SAMPLER = """
from imder_lib.diffusion.samplers import SAMPLERS


def mine(denoise, sigmas, x, condition=None, noise=None, callback=None):
    for s in sigmas[:-1]:
        x = denoise(x, s * x.new_ones(len(x)), condition)
    return x


SAMPLERS["mine"] = mine
"""


@pytest.fixture(autouse=True)
def tables(monkeypatch):
    """What an extension registers is gone after the test."""
    for table in (COMPARED, RECOVERERS, SAMPLERS):
        for name in ("net", "mine", *table):
            monkeypatch.setitem(table, name, table.get(name))
        for name in ("net", "mine"):
            del table[name]


def planned(folder, text, name="mine.py", **grid):
    path = folder / name
    path.write_text(text)
    given = {"profile": "smoke", "seeds": [1], "epochs": 1, "steps": 2, "recoverers": ["net"], "extension": str(path)}
    return plan(Grid(**given | grid))


def test_right_ones_are_planned(tmp_path):
    assert [c.label for c in planned(tmp_path, MINE)] == ["synthetic-fusion-seed1", "synthetic-net-seed1"]
    for name in ("stochastic = True\n\n    def __init__", "stochastic = posterior = True\n\n    def __init__"):
        text = "from imder_lib.diffusion.noise import normal\n" + MINE.replace("def __init__", name, 1)
        assert planned(tmp_path, text.replace(RETURN, NOISY))
    for recipe in ("staged", "released"):
        assert planned(tmp_path, SAMPLER, recoverers=["kit"], sampler={"name": "mine"}, recipe=[recipe])


STATISTICS = """
    def prepare(self, latents):
        self.average = {m: x.mean(dim=(0, 2), keepdim=True) for m, x in latents.items()}

    average = dict.fromkeys(("text", "audio", "vision"), 0)

"""


@pytest.mark.parametrize("steps", [1, 5, 50])
def test_statistics_that_a_saved_model_lacks(tmp_path, steps):
    text = MINE.replace("    def forward", STATISTICS + "    def forward").replace(
        "values = ", "values = self.average  # "
    )
    planned(tmp_path, MINE)
    (tmp_path / "mine.py").write_text(text.replace("    def losses", "    def other"))
    load_extension(str(tmp_path / "mine.py"))
    config = compared_config("net", start_run("synthetic", "smoke", "1", ".", create=False).model_config())
    with pytest.raises(UserError, match="once saved and loaded, it draws other numbers"):
        try_recoverer(config, 40, steps)


@pytest.mark.parametrize("width", [2, 10])
def test_rounding_is_no_draw(monkeypatch, width):
    """Rows of a product may be rounded differently: a deterministic recoverer passes."""

    class Flat(Recoverer):
        def __init__(self, config):
            super().__init__(config)
            self.net = nn.Sequential(nn.Linear(3 * config.dim * 50, width), nn.Tanh(), nn.Linear(width, config.dim))

        def forward(self, latents, available, noise=None, sampler=None, callback=None):
            seen = torch.cat([latents[m] * available[:, i, None, None] for i, m in enumerate(self.modalities)], dim=1)
            return self.fill(latents, available, {m: self.net(seen.flatten(1))[..., None] for m in self.modalities})

    monkeypatch.setitem(RECOVERERS, "net", Flat)
    config = start_run("synthetic", "smoke", "1", ".", create=False).model_config()
    try_recoverer(replace(config, recoverer="net"), 40, 50)


def test_another_code_is_another_cell(tmp_path):
    """Those of the kit's recoverers stay."""
    both = {"recoverers": ["dropout", "net"]}
    before = [c.name for c in planned(tmp_path, MINE, **both)]
    del COMPARED["net"], RECOVERERS["net"]
    after = [c.name for c in planned(tmp_path, MINE.replace("128", "64"), **both)]
    (old,), (new,) = set(before) - set(after), set(after) - set(before)
    assert old.startswith("synthetic-net-seed1-") and new.startswith("synthetic-net-seed1-")


@pytest.mark.parametrize("name", COMPARED)
def test_the_kits_own_recoverers_pass(name):
    run = start_run("synthetic", "smoke", "1", ".", create=False)
    try_recoverer(compared_config(name, run.model_config()), 40, 5)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (RETURN, NOISY, "its draws differ: set stochastic = True"),
        (RETURN, NOISY.replace("normal(x, noise)", "torch.rand_like(x)"), "draws other numbers from the same noise"),
        (RETURN, RETURN.replace("return ", ""), "forward must return modality -> (B, D, T) for"),
        (RETURN, "return {m: x[:, :4] for m, x in latents.items()}", "forward must return text with shape (7, 32, 16)"),
        (RETURN, "return {m: x / 0 for m, x in latents.items()}", "numbers for text that are not finite"),
        (RETURN, "return values", "forward changes text where it is available"),
        (
            RETURN,
            "values = {m: x - x.mean(0) for m, x in values.items()}\n        " + RETURN,
            "depends on the other samp",
        ),
        (RETURN, "assert not available.all()\n        " + RETURN, "ends in an error: AssertionError:  (line "),
        ("class Net", "1 / 0\n\n\nclass Net", "mine.py ends in an error: ZeroDivisionError: division by zero (line "),
        (RETURN, "return x", "NameError: name 'x' is not defined (line "),
        (", noise=None, sampler=None, callback=None", "", "TypeError: Net.forward() takes 3"),
        ("generator=None, truth=None", "generator=None", "TypeError: Net.losses() takes from 3 to 4"),
        (".clamp(min=1)", "", "must be a finite number, got nan if nothing is missing: return 0 there"),
        ("return dict(zip(self.modalities, loss))", "return loss", "losses must return modality -> scalar"),
        ("zip(self.modalities, loss)", "zip(self.modalities, loss.detach())", "losses have no gradient"),
        ("self.net = ", "self.nets = [nn.Linear(width, width)]  # ", "parameters of __init__ alone"),
        (
            "def estimate",
            "def prepare(self, latents):\n        self.net = nn.Linear(96, 96)\n\n    def estimate",
            "make all networks there and none in prepare",
        ),
        (
            "def estimate",
            "def prepare(self, latents):\n        self.x = 1.5\n\n    def estimate",
            "cannot be loaded and used ('Net' object has no attribute 'x')",
        ),
        (
            "def estimate",
            "x = 0\n\n    def prepare(self, latents):\n        self.x = 9\n\n    def estimate",
            "other numbers",
        ),
        ("= Net", "= lambda config: 3", "expected a subclass of Recoverer, got int"),
        ('COMPARED["net"]', 'COMPARED["kit"]', "registers 'kit', a name of the kit"),
        ('COMPARED["net"] =', 'COMPARED["a/b"] =', "with a NAME of letters, digits, '.', '_', '-'"),
        ('COMPARED["net"] = {"recoverer": "net"}', 'COMPARED["net"] = "net"', "expected COMPARED[NAME] = {"),
        ('"recoverer": "net"', '"recoverer": "net", "dimm": 3', "of extension"),
        ('COMPARED["net"] =', "other =", "'net' is in RECOVERERS: a row of COMPARED must use it"),
    ],
)
def test_mistakes_are_said(tmp_path, old, new, message):
    text = "import torch\nfrom imder_lib.diffusion.noise import normal\n" + MINE
    assert old in text
    text = text.replace(old, new)
    if "self.nets" in new:
        text = text.replace("self.net(", "self.nets[0](")
    if "self.x" in new:
        text = text.replace(
            "inverse(self.estimate(latents, available))", "inverse(self.estimate(latents, available) + self.x)"
        )
    with pytest.raises(UserError, match=re.escape(message)):
        planned(tmp_path, text)


def test_mistakes_in_the_file_and_in_the_grid(tmp_path):
    for name in ("json.py", "yaml.py", "imder_lib.py"):
        with pytest.raises(UserError, match=f"{name} is named like another Python module"):
            planned(tmp_path, MINE, name)
    for changes in ({"recoverers": ["net"]}, {"recoverers": ["kit"], "sampler": {"name": "mine"}}):
        with pytest.raises(UserError, match=r"for one of your own add extension: FILE\.py"):
            planned(tmp_path, MINE, **changes, extension="")
    nothing = SAMPLER.replace("    return x\n", "")
    for recipe in ("staged", "released"):
        with pytest.raises(UserError, match="ends in an error: TypeError"):
            planned(tmp_path, nothing, recoverers=["kit"], sampler={"name": "mine"}, recipe=[recipe])
