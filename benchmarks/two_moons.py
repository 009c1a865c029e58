"""C2ST of the default recovery on two moons: python benchmarks/two_moons.py --seeds 1,2,3.

Trains the default recovery on two moons, draws theta given each of sbibm's ten observations, and compares the draws
with as many exact ones by C2ST (.5 is perfect). Draws outside the prior are drawn again, as in NPE of the toolbox sbi;
the columns "all" are without this rejection. Validation uses 1,000 simulations in addition to --train. Published
numbers of sbibm are for 10,000 draws; with fewer draws, C2ST is lower unless the draws are exact.
"""

import argparse
import tempfile

import numpy as np
import pandas as pd

from imder_course.c2st import c2st
from imder_course.theta_draws import OBSERVATIONS, draws_of_theta, two_moons_posterior
from imder_lib import IMDer, fit, load_data, model_preset, train_preset
from imder_lib.settings import changed
from imder_runs.profiles import PROFILES, find_profile
from imder_runs.setup import default_device, parse_seeds

PUBLISHED = {"sbibm NPE, 10,000 simulations": 0.606}  # Lueckmann et al., 2021: mean of the ten observations


def trained(simulations: int, profile_name: str, seed: int) -> IMDer:
    """Train the default recovery on two moons; data and training have the same seed."""
    data, budget = load_data("two_moons", sizes={"train": simulations}, seed=seed), find_profile(profile_name)
    model = IMDer(model_preset("mosi", data.widths, **budget.model), seed=seed).to(default_device())
    train = train_preset("mosi", seed=seed, **budget.train)
    train = changed(train, fusion={"epochs": 1})  # it sets the encoders; fusion itself has no part in draws
    with tempfile.TemporaryDirectory() as folder:
        return fit(model, data, train, folder, until="diffusion").model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", default="1,2,3")
    parser.add_argument("--profile", default="quick", choices=PROFILES)
    parser.add_argument("--train", type=int, default=10000, help="simulations to train on")
    parser.add_argument("--draws", type=int, default=1000)
    args = parser.parse_args()
    table = pd.DataFrame(index=pd.Index(range(1, len(OBSERVATIONS) + 1), name="observation"))
    for seed in parse_seeds(args.seeds):
        model = trained(args.train, args.profile, seed)
        rng = np.random.default_rng(seed)
        exact = [two_moons_posterior(x, args.draws, rng) for x in OBSERVATIONS]
        for name, inside_prior in ((f"seed {seed}", True), (f"seed {seed}, all", False)):
            found = draws_of_theta(model, OBSERVATIONS, args.draws, seed, inside_prior)
            table[name] = [c2st(e, f) for e, f in zip(exact, found, strict=True)]
            print(f"{name}: mean C2ST {table[name].mean():.3f}", flush=True)
    print(table.round(3).to_string())
    print(f"mean C2ST of {args.draws} draws: {table[[c for c in table if 'all' not in c]].to_numpy().mean():.3f}")
    for name, value in PUBLISHED.items():
        print(f"{name}: {value:.3f}")


if __name__ == "__main__":
    main()
