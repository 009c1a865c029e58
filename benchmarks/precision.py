"""What a lower precision costs: python benchmarks/precision.py results/quick/models/synthetic/seed1/kit.

Evaluates a trained model (the folder of a run, here of `make reproduce`) on the synthetic test split in each precision:
all patterns, the same noise. Prints the largest differences to float32, and the median time of each over --rounds; the
precisions take turns, and each first evaluation is not timed.
"""

import argparse
import time
from pathlib import Path
from statistics import median

import pandas as pd

from imder_lib import IMDer, changed, evaluate, load_data, load_model
from imder_runs.setup import default_device


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--dataset", default="synthetic")
    parser.add_argument("--limit", type=int, default=500, help="test samples")
    parser.add_argument("--draws", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3, help="timed ones")
    args = parser.parse_args()
    device, data = default_device(), load_data(args.dataset)
    trained = load_model(args.folder / "model.safetensors", device)
    kinds = ["float32", *(["tf32"] if device.type == "cuda" else []), "bfloat16"]
    models, tables, times = {}, {}, {kind: [] for kind in kinds}
    for kind in kinds:
        models[kind] = IMDer(changed(trained.config, precision=kind)).to(device)
        models[kind].load_state_dict(trained.state_dict())
    for _ in range(1 + args.rounds):
        for kind, model in models.items():
            began = time.perf_counter()
            tables[kind] = evaluate(model, data.test.first(args.limit), ["fixed"], draws=args.draws, baselines=False)
            times[kind].append(time.perf_counter() - began)
    seconds = {kind: median(took[1:]) for kind, took in times.items()}
    exact = tables["float32"]
    columns = [c for c in ("acc2", "mae", "corr", "acc", "f1_weighted", "cover80") if c in exact]
    apart = {kind: (table[columns] - exact[columns]).abs().max() for kind, table in tables.items()}
    print(pd.DataFrame(apart).T.assign(seconds=seconds).round(4).to_string())


if __name__ == "__main__":
    main()
