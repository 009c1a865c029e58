"""Samplers on trained networks: python benchmarks/samplers.py results/recovery/synthetic/seed1/kit ...

Recovers with the models in the given folders (written by benchmarks/recovery.py without --limit), by em with 100 calls
and the release's levels, and by solvers with fewer calls. OUT.csv holds all patterns and metrics of each folder, also
for draws of the exact posterior, and the paired differences to em.
"""

import argparse
from pathlib import Path

import pandas as pd

from imder_course.posterior_check import posterior_check
from imder_lib.diffusion.samplers import Sampler
from imder_lib.experiment.checkpoint import load_model
from imder_runs.setup import start_run

SAMPLERS = {
    "em 100": Sampler("em", 100, "released"),
    "2m_sde 10": Sampler("dpmpp_2m_sde", 10),
    "2m_sde 20": Sampler("dpmpp_2m_sde", 20),
    "adams 5": Sampler(steps=5),
    "adams 7": Sampler(steps=7),
    "adams 10": Sampler(steps=10),
    "adams 15": Sampler(),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", nargs="+", help="of trained models; the position, from 1, is the seed of the noise")
    parser.add_argument("--profile", default="full")
    parser.add_argument("--dataset", default="synthetic")
    parser.add_argument("--draws", type=int, default=8)
    parser.add_argument("--limit", type=int, default=128, help="test samples")
    parser.add_argument("--out", default="results/samplers.csv")
    args = parser.parse_args()
    run, tables = start_run(args.dataset, args.profile, "1", Path(args.out).parent), []
    for seed, folder in enumerate(args.folders, start=1):
        model = load_model(Path(folder) / "model.safetensors")
        table = posterior_check(model, run.data, draws=args.draws, seed=seed, limit=args.limit, samplers=SAMPLERS)
        tables.append(table.assign(folder=folder))
        pd.concat(tables).to_csv(args.out, index=False)
        print(f"{folder}: done", flush=True)
    shape = {"index": ["pattern", "metric"], "columns": "method", "values": "value", "sort": False}
    print(pd.concat(tables).pivot_table(**shape, aggfunc="median").round(3).to_string())


if __name__ == "__main__":
    main()
