"""Compare recoverers on a user's file: python benchmarks/real_data.py FILE --seeds 1,2,3,4,5.

Trains all recoverers for each seed and writes OUT/predictions.csv (all test samples under all cases) and
OUT/metrics.csv: MAE and correlation of each method, and its difference to method kit, with 95 % intervals from a paired
bootstrap over test samples and seeds. What a sample lacks in the file is missing in every case. "ridge" is
scikit-learn's RidgeCV on the time averages of the standardised features, with one fit per pattern, on the training
samples that have it. An interrupted run is continued.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from sklearn.linear_model import RidgeCV

from imder_lib.data.missing import availability, restrict
from imder_lib.data.schema import Split
from imder_lib.errors import unknown
from imder_lib.experiment.cases import cases
from imder_lib.experiment.prediction import predict
from imder_lib.model.imder import IMDer
from imder_lib.model.recovery import MeanFill, ZeroFill, encode_split
from imder_runs.comparison import COMPARED, train_compared
from imder_runs.setup import Run, default_device, parse_seeds, start_run

RESAMPLES = 2000
Found = dict[str, np.ndarray]  # method -> predictions (N,)


def masks(run: Run, seed: int) -> dict[tuple[str, str], np.ndarray]:
    """Masks (N, M) of the test split for all cases of protocols fixed and random, without what samples lack."""
    modalities, test = run.data.modalities, run.data.test
    mask = lambda p, c: availability(p, len(test), modalities, c, seed=seed, ids=test.ids)  # noqa: E731
    todo, given = cases(["fixed", "random"], modalities), test.given(modalities)
    return {(p, str(c)): restrict(mask(p, c), given).numpy() for p, c in todo}


def ridge(run: Run, available: np.ndarray) -> np.ndarray:
    """Predictions (N,) for the test samples by one ridge regression per pattern, on training samples that have it."""
    out, has = np.empty(len(available)), run.data.train.given(run.data.modalities).numpy()

    def average(split: Split, given: np.ndarray) -> np.ndarray:
        x = split.batch().features
        return np.concatenate([x[m].mean(1).numpy() for m, on in zip(run.data.modalities, given, strict=True) if on], 1)

    for pattern in np.unique(available, axis=0):
        rows, own = (available == pattern).all(axis=1), has[:, pattern].all(axis=1)
        own = own if own.sum() > 1 else np.ones_like(own)  # a rare pattern: what the others lack is zero
        fit = RidgeCV(np.logspace(-1, 5, 25)).fit(average(run.data.train, pattern)[own], run.data.train.labels[own])
        out[rows] = fit.predict(average(run.data.test, pattern))[rows]
    return out


@torch.no_grad()
def rows_of(name: str, model: IMDer, run: Run, seed: int, draws: int) -> pd.DataFrame:
    """Predictions of one model; model kit also gives the rows of methods without training."""
    model.eval()
    split, recoverers = run.data.test, {name: model.recoverer}
    if name == "kit":
        mean = MeanFill(model.config).to(default_device())
        mean.prepare(encode_split(model, run.data.train))
        recoverers |= {"zero": ZeroFill(model.config), "mean": mean}
    latents, out = encode_split(model, split), []
    for (protocol, case), available in masks(run, seed).items():
        found: Found = {
            method: predict(model, recoverer, latents, split.ids, available, seed, draws=draws).mean(0)
            for method, recoverer in recoverers.items()
        }
        if name == "kit":
            found |= {"ridge": ridge(run, available)}
            found |= {"constant": np.full(len(split), np.median(run.data.train.labels))}
        for method, p in found.items():
            columns = {"protocol": protocol, "case": case, "method": method, "seed": seed}
            out.append(pd.DataFrame({"sample": range(len(split)), "prediction": p, "label": split.labels, **columns}))
    return pd.concat(out)


def scores(p: np.ndarray, y: np.ndarray) -> np.ndarray:
    """MAE and correlation of predictions p (..., N) with labels y (..., N): (2, ...)."""
    a, b = p - p.mean(-1, keepdims=True), y - y.mean(-1, keepdims=True)
    size = np.sqrt((a**2).sum(-1) * (b**2).sum(-1))
    corr = np.divide((a * b).sum(-1), size, out=np.zeros_like(size), where=size > 1e-9)
    return np.stack([np.abs(p - y).mean(-1), corr])


def intervals(table: pd.DataFrame) -> pd.DataFrame:
    """One row per case, method and metric: mean over seeds, interval, and interval of the difference to kit."""
    rng, rows = np.random.default_rng(0), []
    for (protocol, case), part in table.groupby(["protocol", "case"], sort=False):
        wide = {m: p.pivot(index="seed", columns="sample", values="prediction").to_numpy() for m, p in
                part.groupby("method", sort=False)}  # fmt: skip
        y = part.drop_duplicates("sample").sort_values("sample")["label"].to_numpy()
        S, N = wide["kit"].shape
        seeds, samples = rng.integers(0, S, (RESAMPLES, S, 1)), rng.integers(0, N, (RESAMPLES, 1, N))
        again = {m: scores(p[seeds, samples], y[samples]).mean(-1) for m, p in wide.items()}  # (2, RESAMPLES)
        for method, p in wide.items():
            value = scores(p, y).mean(-1)
            for i, metric in enumerate(("mae", "corr")):
                low, high = np.quantile(again[method][i], (0.025, 0.975))
                less, more = np.quantile(again[method][i] - again["kit"][i], (0.025, 0.975))
                rows.append(
                    {"protocol": protocol, "case": case, "method": method, "metric": metric,
                     "value": value[i], "low": low, "high": high, "less": less, "more": more}
                )  # fmt: skip
    return pd.DataFrame(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file")
    parser.add_argument("--profile", default="quick")
    parser.add_argument("--seeds", default="1,2,3,4,5")
    parser.add_argument("--draws", type=int, default=16)
    parser.add_argument("--names", default=",".join([*COMPARED, "kit observed"]), help="recoverers to train, with kit")
    parser.add_argument("--out", default="results/real_data")
    args = parser.parse_args()
    names = ["kit", *(n for n in args.names.split(",") if n not in ("kit", ""))]
    if bad := [n for n in names if n not in (*COMPARED, "kit observed")]:
        parser.error(str(unknown("unknown recoverer", bad[0], [*COMPARED, "kit observed"])))
    run, tables = start_run(args.file, args.profile, args.seeds, args.out), []
    for seed in parse_seeds(args.seeds):
        for name in names:
            train = run.train_config(seed)
            folder, kind = run.folder / f"seed{seed}", name
            if name == "kit observed":
                train, folder, kind = replace(train, supervision="observed"), folder / "observed", "kit"
            model = train_compared(kind, run.data, run.model_config(), train, folder, default_device()).model
            found = rows_of(name, model, run, seed, args.draws)
            tables.append(found)
            pd.concat(tables).to_csv(Path(args.out) / "predictions.csv", index=False)
            print(f"seed {seed}, {name}: done", flush=True)
    found = intervals(pd.concat(tables))
    found.to_csv(Path(args.out) / "metrics.csv", index=False)
    for metric, part in found.groupby("metric", sort=False):
        print(metric, part.pivot_table("value", ["protocol", "case"], "method", sort=False).round(4).to_string())
    compared = found[found.less < found.more]  # without kit, and what predicts the same
    beaten = compared[
        ((compared.metric == "corr") & (compared.less > 0)) | ((compared.metric == "mae") & (compared.more < 0))
    ]
    chance = f"{len(compared)} comparisons, not corrected: at most {0.025 * len(compared):.1f} expected by chance alone"
    print(f"better than kit by its interval ({chance}):", beaten.to_string(index=False) if len(beaten) else "nothing")


if __name__ == "__main__":
    main()
