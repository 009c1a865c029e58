"""The paper's grid. A cell is one trained model; finished cells are not repeated."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from imder_lib.errors import unknown
from imder_lib.experiment.cases import Case, cases, rates_of
from imder_lib.experiment.checkpoint import write_text
from imder_lib.experiment.evaluation import evaluate
from imder_lib.experiment.pretrain import like_pretrained, load_pretrained, pretrain, read_pretrained
from imder_lib.experiment.training import fit
from imder_lib.model.imder import IMDer
from imder_lib.runs.setup import Run, default_device
from imder_lib.runs.tables import beside_published


@dataclass(frozen=True)
class Cell:
    """One model of the grid."""

    recipe: str  # "staged": one model for all rates; "released": one model per rate
    seed: int  # of training and evaluation
    rate: float | None = None  # missing rate in training; None: all rates

    @property
    def name(self) -> str:
        return f"{self.recipe}-{'all' if self.rate is None else f'rate{self.rate}'}-seed{self.seed}"


def parse_list(text: str, known: Sequence, what: str) -> list:
    """Parse distinct entries of "a,b"; all known entries if empty."""
    kind = type(known[0])
    try:
        chosen = [kind(x) for x in text.split(",")] if text else list(known)
    except ValueError:
        chosen = [text]
    if bad := [x for x in chosen if x not in known]:
        raise unknown(f"unknown {what}", bad[0], known, "expected one or more of", ", joined by commas")
    return list(dict.fromkeys(chosen))


def with_pretrained(run: Run) -> Run:
    """Add a pretrained model to a run without one: stage 1, trained once for all cells."""
    if run.pretrained:
        return run
    path, seed = run.folder / f"pretrained-{run.data.name}.safetensors", run.seeds[0]
    if not path.with_suffix(".json").exists():
        print(f"stage 1 of all cells: {path.name} ...", flush=True)
        pretrain_run(run, seed, run.model_folder(seed).with_name("pretrained"), path)
    run = replace(run, pretrained=str(path))
    return run.with_bert() if run.text == "bert-finetune" else run  # start_run has done this for a frozen BERT


def pretrain_run(run: Run, seed: int, folder: Path, path: Path) -> None:
    """Run stage 1, with BERT under text "bert-finetune"; see :func:`pretrain`."""
    bert, config = None, run.model_config()
    if run.text == "bert-finetune":
        bert = run.bert()
        config = replace(config, widths={**config.widths, "text": bert.config.hidden_size})
    model = IMDer(config, seed=seed).to(default_device())
    pretrain(model, run.data, run.train_config(seed), folder, path, bert=bert, resume=True)


def sweep(run: Run, recipes: Sequence[str], rates: Sequence[float] = ()) -> pd.DataFrame:
    """Train and evaluate all cells, then write the tables; cells/NAME.csv marks a finished cell.

    Args:
        run: run with a pretrained model, see :func:`with_pretrained`.
        recipes: "staged", "released" or both.
        rates: of the random protocol; empty: all that the number of modalities allows.

    Returns:
        the rows of all cells
    """
    rates, tables = rates or rates_of("random", run.data.modalities), []
    grid = cells(recipes, rates, run.seeds)
    for i, cell in enumerate(grid, start=1):
        path = run.folder / "cells" / f"{cell.name}.csv"
        done = path.exists()
        print(f"cell {i}/{len(grid)} {cell.name}{': done before' if done else ' ...'}", flush=True)
        if not done:
            model, tested = train_cell(run, cell), tested_on(cell, rates, run.data.modalities)
            batch = run.train_config(cell.seed).batch_size
            table = evaluate(model, run.data.test, tested, [cell.seed], draws=run.draws, mask_batch=batch)
            write_text(path, table.assign(recipe=cell.recipe).to_csv(index=False))
        tables.append(pd.read_csv(path, dtype={"case": str}))
    table = pd.concat(tables, ignore_index=True)
    run.save_table(table, "05_paper_all")
    for recipe, part in table.groupby("recipe"):
        for protocol in ("fixed", "random"):
            shown = beside_published(part, run.data.name, protocol, sentiment=run.data.sentiment_scale)
            if not shown.empty:
                run.save_table(shown, f"05_paper_{protocol}_{recipe}")
    return table


def cells(recipes: Sequence[str], rates: Sequence[float], seeds: Sequence[int]) -> list[Cell]:
    """Cells of the grid, ordered by seed, so that complete tables are available early."""
    trained_for = {"staged": [None], "released": rates}
    return [Cell(recipe, seed, rate) for seed in seeds for recipe in recipes for rate in trained_for[recipe]]


def train_cell(run: Run, cell: Cell) -> IMDer:
    """Train the model of a cell, or continue its training."""
    if cell.recipe == "staged":
        return run.train(cell.seed).model  # shared with the notebooks
    weights = read_pretrained(run.pretrained)
    model = IMDer(like_pretrained(run.model_config("released"), weights), seed=cell.seed).to(default_device())
    load_pretrained(model, weights)
    config = replace(run.train_config(cell.seed), recipe=cell.recipe, rate=cell.rate)
    return fit(model, run.data, config, run.model_folder(cell.seed).with_name(cell.name), resume=True).model


def tested_on(cell: Cell, rates: Sequence[float], modalities: Sequence[str]) -> list[Case]:
    """Test cases of a cell: all cases, or those of its training rate.

    The release has no models for fixed patterns, so each pattern is tested with the model of the nearest rate: .7 (2/3)
    for two missing modalities of three, .3 for one, 0 for none.
    """
    fixed = cases("fixed", modalities)
    if cell.rate is None:
        return fixed + [("random", r) for r in rates]
    missing = {c: 1 - len(str(c[1]).split("+")) / len(modalities) for c in fixed}
    own = [c for c in fixed if min(rates, key=lambda r: abs(r - missing[c])) == cell.rate]
    return [*own, ("random", cell.rate), ("released", cell.rate)]
