"""A small data set and model shared by all tests; tests do not change them."""

import tempfile
from dataclasses import replace
from pathlib import Path

import matplotlib.pyplot as plt
import pytest
from hypothesis import HealthCheck, configuration, settings

from imder_lib import IMDer, ModelConfig, TrainConfig, load_data
from imder_lib.config import KIT, RELEASED, RELEASED_SAMPLER, FusionConfig, JointConfig, UNetConfig
from imder_lib.diffusion.samplers import Sampler
from imder_lib.settings import changed

WIDTHS = {"text": 12, "audio": 5, "vision": 8}
configuration.set_hypothesis_home_dir(Path(tempfile.gettempdir()) / "hypothesis")  # not in the checkout
# test_fuzz*.py: a fixed share in the tests, other cases each time in make fuzz
_common = {"deadline": 10_000, "database": None, "print_blob": True}
_common["suppress_health_check"] = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
settings.register_profile("tests", max_examples=150, derandomize=True, **_common)
settings.register_profile("fuzz", max_examples=20_000, **_common)
settings.load_profile("tests")  # unless pytest is called with --hypothesis-profile


FIRST = ("test_reproduce.py", "test_notebooks.py", "test_sweep.py", "test_slurm.py")  # the longest


def pytest_collection_modifyitems(items):
    """Long files first, so that no worker is left with one while the others are idle."""
    items.sort(key=lambda item: FIRST.index(item.path.name) if item.path.name in FIRST else len(FIRST))


@pytest.fixture(autouse=True)
def plain_style():
    """Restore the matplotlib style after each test, so that tests do not depend on their order."""
    with plt.rc_context():
        yield
    plt.close("all")


@pytest.fixture(scope="session")
def data():
    return small_data()


def small_data():
    return load_data("synthetic", sizes={"train": 48, "valid": 16, "test": 24}, widths=WIDTHS, steps=10)


@pytest.fixture
def model():
    return tiny_model()


def tiny_model(widths=None, seed=0, preset="kit", recoverer="diffusion", sampler=None, **switches) -> IMDer:
    kw = {"dim": 16, "recoverer": recoverer, "fusion": FusionConfig(layers=1)}
    kw |= {"unet": UNetConfig((32, 64), refiner_blocks=1), "joint": JointConfig(16, 2)}
    rules, own = (RELEASED, RELEASED_SAMPLER) if preset == "released" else (KIT, Sampler())
    if switches.get("net") == "unet":
        switches.setdefault("condition_dropout", 0.0)
    kw |= {"rules": replace(rules, **switches), "sampler": replace(sampler or own, steps=3)}
    return IMDer(ModelConfig(widths=widths or WIDTHS, **kw), seed=seed)


@pytest.fixture
def tiny_config():
    two = {"epochs": 2}
    adapt = {"epochs": 2, "patterns": 2}
    return changed(TrainConfig(seed=3, batch_size=16), fusion=two, diffusion=two, adapt=adapt, joint=two)
