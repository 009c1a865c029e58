"""Recovery against the exact posterior: python benchmarks/recovery.py --profile quick --seeds 1,2,3.

For each seed, trains a shared fusion stage, then each recoverer of --names with the same settings. Writes
OUT/sample_quality.csv (all patterns and metrics, also for draws of the exact posterior) and OUT/metrics.csv; "seconds"
are those of the recoverer's epochs, without the shared stage. With --limit, it computes only sample quality, on that
number of test samples, because the released sampler takes hours; fusion, which has no part in it, trains for one epoch
then, so these models stand in a folder of their own. With --train, a synthetic process has another number of training
samples. An interrupted run is continued: models and sample qualities that are there are read.
"""

import argparse
from pathlib import Path

import pandas as pd

from imder_course.posterior_check import posterior_check
from imder_lib import changed
from imder_lib.data.synthetic import synthetic
from imder_lib.experiment.evaluation import evaluate
from imder_lib.files import write_text
from imder_runs.comparison import COMPARED, train_compared
from imder_runs.setup import default_device, parse_seeds, start_run
from imder_runs.sweep import parse_list


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--profile", default="quick")
    parser.add_argument("--dataset", default="synthetic")
    parser.add_argument("--seeds", default="1")
    parser.add_argument("--names", default="released,kit")
    parser.add_argument("--draws", type=int, default=16)
    parser.add_argument(
        "--limit", type=int, default=0, help="test samples, for sample quality only; 0: all, and accuracy"
    )
    parser.add_argument("--train", type=int, default=0, help="training samples of synthetic or gaussian; 0: its own")
    parser.add_argument("--out", default="results/recovery")
    args = parser.parse_args()
    run = start_run(args.dataset, args.profile, args.seeds, args.out)
    data = synthetic(sizes={"train": args.train}, name=args.dataset) if args.train else run.data
    tables, metrics = [], []
    names = parse_list(args.names, list(COMPARED), "recoverer")
    for seed in parse_seeds(args.seeds):
        for i, name in enumerate(names):
            model, train = run.model_config(), run.train_config(seed)
            train = changed(train, fusion={"epochs": 1}) if args.limit else train
            folder, until = run.folder / data.name / f"seed{seed}", "diffusion" if args.limit else None
            folder = folder / f"train{args.train}" if args.train else folder
            folder = folder / "limited" if args.limit else folder
            result = train_compared(name, data, model, train, folder, default_device(), until)
            trained, history = result.model, result.history
            seconds = history["seconds"][history["stage"] != "fusion"].sum()
            if not args.limit:
                kw = {"draws": args.draws, "baselines": i == len(names) - 1}
                rows = evaluate({name: trained}, data.test, ["fixed"], [seed], **kw)
                metrics.append(rows.assign(seconds=rows["method"].map({name: seconds})))
                pd.concat(metrics).to_csv(Path(args.out) / "metrics.csv", index=False)
            if name != "dropout":  # its zeros are no estimate
                how = trained.config.sampler
                kept = f"sample_quality_{args.draws}_draws_{args.limit or 'all'}_{how.name}_{how.steps}.csv"
                kept = folder / name / kept
                if not kept.exists():
                    table = posterior_check(trained, data, draws=args.draws, seed=seed, limit=args.limit)
                    write_text(kept, table.replace({"method": {"recovered": name}}).to_csv(index=False))
                table = pd.read_csv(kept)
                tables.append(table.assign(seed=seed, seconds=table["method"].map({name: seconds})))
                pd.concat(tables).to_csv(Path(args.out) / "sample_quality.csv", index=False)
            print(f"seed {seed}, {name}: trained in {seconds:.0f} s", flush=True)
    if tables:
        table = pd.concat(tables).pivot_table(
            index=["pattern", "metric"], columns="method", values="value", aggfunc="median", sort=False
        )
        print(table.round(3).to_string())


if __name__ == "__main__":
    main()
