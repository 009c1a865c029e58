"""Random grids are read or refused with one error. More of them: python tests/runs/test_grid_fuzz.py N."""

import random
import sys
import tempfile
from pathlib import Path

import yaml

from imder_lib import UserError
from imder_runs.grid import Grid, read_grid

VALUES = [0, 1, -1, 0.3, 1e309, float("nan"), True, None, "", "kit", "a\nb", "../..", [], [[]], {}, {"a": 1}, [1, "a"],
          "smoke", "fixed", "random", "released", "staged", [0.1, 0.5], {"lr": [0.1, "x"]}, {"layers": 1}, {1: 2},
          10**30]  # fmt: skip
KEYS = [*Grid.__dataclass_fields__, "Seeds", 1, None, "recoverer"]
INNER = ["lr", "fusion", "unet", "diffusion", "steps", "name", "channels", "settings", "patience", "seed", 3]
TEXTS = ["[", "{", "a: &x [*x]", "? [a]\n: b", "!!python/name:os.system", "%", "\0", "a: 2020-01-01", "- " * 2000,
         "{" * 500, "seeds: !!set {1}", "seeds: 1_000", "dataset: ~",
         "<<: 1", "a: b: c", "'", "\ufeffseeds: 1"]  # fmt: skip


def one(rng: random.Random, path: Path) -> bool:
    """One case; whether it was read."""
    if rng.random() < 0.3:
        text = "".join(rng.choice([*TEXTS, "\n", "seeds: 1\n", "profile: smoke\n"]) for _ in range(rng.randint(1, 4)))
    else:
        grid = {rng.choice(KEYS): rng.choice(VALUES) for _ in range(rng.randint(0, 4))}
        for group in ("model", "train", "sampler"):
            if rng.random() < 0.3:
                grid[group] = {rng.choice(INNER): rng.choice(VALUES) for _ in range(rng.randint(0, 2))}
        text = yaml.safe_dump(grid)
    raw = bytearray(text.encode())
    for _ in range(rng.choice([0, 0, 0, 1, 3])):
        if raw:
            raw[rng.randrange(len(raw))] = rng.randrange(256)
    path.write_bytes(raw)
    try:
        return isinstance(read_grid(path), Grid)
    except UserError as error:
        assert str(error).strip()
        return False


def fuzz(n: int, folder: Path) -> int:
    rng = random.Random(n)
    return sum(one(rng, folder / "grid.yaml") for _ in range(n))


def test_random_grids(tmp_path):
    assert 0 < fuzz(1000, tmp_path) < 1000


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as home:
        print(f"{fuzz(int(sys.argv[1]), Path(home))} of {sys.argv[1]} grids were read, the others refused")
