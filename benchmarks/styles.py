"""Recovery on data with hidden styles: python benchmarks/styles.py --seeds 1,2,3.

Trains profile quick on the synthetic process with hidden styles. Prints, for each pattern: ACC2 and the Bayes limit,
and ACC2 of the same fusion with exact draws, and with a linear regression (with --network, also a deterministic
network) as recoverer; the error of the style shares of the draws against their exact posterior; C2ST and energy score
relative to exact draws.
"""

import argparse
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from imder_course.c2st import c2st
from imder_course.decoding import Decoder
from imder_course.posterior_check import posterior_check
from imder_lib import bayes_prediction, load_data, patterns
from imder_lib.data.missing import available_columns
from imder_lib.data.posterior import exact_draws
from imder_lib.diffusion.noise import SampleNoise
from imder_lib.experiment.prediction import predict
from imder_lib.model.recovery import Regression, encode_split
from imder_runs.setup import Run, default_device, parse_seeds


def reliability(exact: np.ndarray, drawn: np.ndarray) -> float:
    """Mean distance of drawn shares and exact probabilities, both (N, R), in ten bins of the latter."""
    bins = np.minimum((exact.ravel() * 10).astype(int), 9)
    off = [abs((exact - drawn).ravel()[bins == b].mean()) for b in np.unique(bins)]
    return float(np.average(off, weights=np.unique(bins, return_counts=True)[1]))


def directions(process, features: dict[str, np.ndarray]) -> np.ndarray:
    """Time averages along the loadings and the tone of each modality: (N, 5 per modality)."""
    out = []
    for m, x in features.items():
        _, size, axes = np.linalg.svd(process.tones[m] - process.tones[m].mean(axis=0), full_matrices=False)
        basis = np.concatenate([process.loadings[m][0], size[0] * axes[:1].T], axis=1)  # the styles' main direction
        basis = basis[:, np.linalg.norm(basis, axis=0) > 0]
        out.append(x.mean(axis=1) @ basis / np.linalg.norm(basis, axis=0))
    return np.concatenate(out, axis=1)


def measure(run: Run, seed: int, draws: int, limit: int, network: bool) -> pd.DataFrame:
    model, data = run.train(seed).model, run.data
    split = data.test.first(limit) if limit else data.test
    latents, train = encode_split(model, split), encode_split(model, data.train)
    others = {"regression": Regression(model.config).to(default_device())}
    others["regression"].prepare(train)
    if network:
        others["network"] = run.train(seed, "network").model.recoverer
    features = {m: np.asarray(x) for m, x in split.features.items()}
    acc = lambda p: float(((p > 0) == (split.labels > 0)).mean())  # noqa: E731
    rows, decode = [], Decoder(model, data.steps)
    complete = np.ones((len(split), len(data.modalities)), dtype=bool)  # nothing is left to recover
    for pattern in patterns(data.modalities):
        mask = available_columns([pattern], data.modalities).numpy().repeat(len(split), 0)
        given = list(pattern)
        row = {"pattern": "+".join(pattern), "bayes": acc(bayes_prediction(data.process, features, mask))}
        own = predict(model, model.recoverer, latents, split.ids, mask, seed, draws=draws)
        row |= {"kit": acc(own.mean(0))}
        if len(pattern) < len(data.modalities):
            for name, recoverer in others.items():
                row[name] = acc(predict(model, recoverer, latents, split.ids, mask, seed)[0])
            where = torch.from_numpy(mask).to(default_device())
            drawn = model.recover(latents, where, SampleNoise(seed, split.ids, "styles"), draws=draws)
            shares = 0.0
            for k in range(draws):
                found = {m: x.cpu().numpy() for m, x in decode({m: x[k] for m, x in drawn.items()}).items()}
                whole = {m: features[m] if m in given else found[m] for m in data.modalities}
                shares = shares + data.process.style_posterior(whole, data.process.loadings) / draws
            row["shares"] = reliability(data.process.style_posterior(features, given), shares)
            rng = np.random.default_rng(seed)
            exact, _ = exact_draws(data.process, features, given, 1, rng)
            missing = [m for m in data.modalities if m not in given]
            row["c2st"] = c2st(
                directions(data.process, {m: exact[m][0] for m in missing}),
                directions(data.process, {m: found[m] for m in missing}),
            )
            mean = 0.0
            for _ in range(draws):  # one by one: features need more memory than latents
                exact, _ = exact_draws(data.process, features, given, 1, rng)
                encoded = encode_split(model, replace(split, features=features | {m: x[0] for m, x in exact.items()}))
                mean = mean + predict(model, model.recoverer, encoded, split.ids, complete, seed)[0] / draws
            row["exact"] = acc(mean)
        rows.append(row)
    table = pd.DataFrame(rows).set_index("pattern")
    check = posterior_check(model, data, draws=min(draws, 16), seed=seed, limit=min(limit or 300, 300))
    energy = check[check["metric"] == "energy"].pivot(index="pattern", columns="method", values="value")
    table["energy"] = energy["recovered"] / energy["exact"]
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", default="1,2,3")
    parser.add_argument("--profile", default="quick")
    parser.add_argument("--draws", type=int, default=16)
    parser.add_argument("--limit", type=int, default=0, help="test samples; 0: all")
    parser.add_argument("--network", action="store_true", help="also the deterministic network (some minutes)")
    parser.add_argument("--out", default="", help="folder of the models; empty: a temporary one")
    args = parser.parse_args()
    data = load_data("synthetic")
    with tempfile.TemporaryDirectory() as folder:
        run = Run(data, args.profile, parse_seeds(args.seeds), Path(args.out or folder))
        tables = []
        for seed in run.seeds:
            started = time.perf_counter()
            tables.append(measure(run, seed, args.draws, args.limit, args.network))
            incomplete = tables[-1].drop(index="+".join(data.modalities))
            print(f"seed {seed}, {time.perf_counter() - started:.0f} s\n{tables[-1].round(3).to_string()}")
            gap = incomplete["bayes"] - incomplete["kit"]
            print(f"bayes - kit over incomplete patterns: mean {gap.mean():.3f}, largest {gap.max():.3f}", flush=True)
    print(f"mean of seeds\n{(sum(tables) / len(tables)).round(3).to_string()}")


if __name__ == "__main__":
    main()
