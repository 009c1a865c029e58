"""Odd grids, runs and parameters by the thousand: equal values come back, or one UserError. ``make fuzz`` runs more."""

import json
import shutil
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st
from odd import CHANGES, CUT, FEW, JSON, damaged, tried

from imder_runs.attempt import CELLS, ERROR, WORK
from imder_runs.cells import METRICS
from imder_runs.grid import Grid, plan, read_grid
from imder_runs.locks import this_host
from imder_runs.notebook import check_parameters, notebook_parameters
from imder_runs.outcome import KEY, compare, read_plan, status, write_plan, write_results
from imder_runs.report import write_report
from imder_runs.reproduce import Settings, open_run
from imder_runs.sweep_commands import StatusSettings, show_status

# Grids


KEYS = st.sampled_from([*Grid.__dataclass_fields__, "Seeds", "recoverer"])
INNER = st.sampled_from(["lr", "fusion", "unet", "diffusion", "steps", "name", "settings", "patience", "seed"])
TEXTS = ["[", "{", "a: &x [*x]", "? [a]\n: b", "!!python/name:os.system", "%", "\0", "a: 2020-01-01", "- " * 2000,
         "{" * 500, "seeds: !!set {1}", "seeds: 1_000", "dataset: ~", "<<: 1", "a: b: c", "'", "\ufeffseeds: 1", "\n",
         "seeds: 1\n", "profile: smoke\n", "rates: [0.1]\n", "imbalanced: {text: 0.1}\n"]  # fmt: skip


@given(
    content=st.dictionaries(KEYS, JSON, max_size=4),
    groups=st.dictionaries(st.sampled_from(["model", "train", "sampler", "imbalanced"]),
                           st.dictionaries(INNER, JSON, max_size=2), max_size=2),
)  # fmt: skip
def test_a_grid(tmp_path, content, groups):
    path = tmp_path / "grid.yaml"
    path.write_text(yaml.safe_dump(content | groups), encoding="utf-8", errors="surrogatepass")
    found = tried(read_grid, path)
    if not set(content) <= set(Grid.__dataclass_fields__):
        assert found is None
        return
    assert repr(found) == repr(tried(lambda: Grid(**yaml.safe_load(path.read_bytes())))) or found is None


@given(pieces=st.lists(st.sampled_from(TEXTS) | st.text(max_size=5), max_size=4), changes=CHANGES, cut=CUT)
def test_the_text_of_a_grid(tmp_path, pieces, changes, cut):
    path = tmp_path / "grid.yaml"
    content = "".join(pieces).encode(errors="surrogatepass") or b"#"
    path.write_bytes(damaged(content, changes, cut))
    assert isinstance(tried(read_grid, path), Grid | None)


# What a run leaves


def rows_of(cell) -> list[dict]:
    head = {"rate": 0.5, "realised": 0.5, "seed": cell.settings["seed"], "n": 3, "draws": 1, "acc2": 0.5, "f1": 0.5,
            "acc7": 0.5, "mae": 1.0, "corr": None, "dataset": "synthetic"}  # fmt: skip
    own = {k: cell.settings.get(k) for k in ("recipe", "recoverer", "varied")}
    return [head | own | {"protocol": p, "case": str(c), "method": m}
            for p, c in cell.settings.get("cases", ()) for m in ("imder", "zero")]  # fmt: skip


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """The folder of a sweep with a finished, a failed, a running and a missing cell, and its cells."""
    folder = tmp_path_factory.mktemp("swept")
    cells = plan(Grid(profile="smoke", seeds=[1, 2], recoverers=["dropout"], rates=[0.3], patterns=["text"]))
    write_plan(folder, cells)
    for cell in cells[:3]:
        own = folder / CELLS / cell.name
        own.mkdir(parents=True)
        (own / METRICS).write_text(json.dumps(rows_of(cell)))
        (own / "provenance.json").write_text('{"seconds": 3.5}')
    shutil.move(folder / CELLS / cells[1].name, folder / WORK / cells[1].name)
    (folder / WORK / cells[1].name / ERROR).write_text('{"error": "no luck", "attempts": 1}')
    (folder / WORK / cells[3].name).mkdir()
    (folder / WORK / cells[3].name / "lock.0").write_text(json.dumps({"host": this_host(), "pid": 1, "started": 1.0}))
    return folder


FILES = (
    "plan.json",
    f"{CELLS}/*dropout*/{METRICS}",
    f"{CELLS}/*/provenance.json",
    f"{WORK}/*/{ERROR}",
    f"{WORK}/*/lock.0",
)


def looked_at(folder: Path, cells) -> None:
    with redirect_stdout(StringIO()):
        tried(show_status, StatusSettings(folder))
        tried(status, folder)
        tried(compare, folder, folder)
        tried(write_results, folder, cells)
    assert len(tried(read_plan, folder) or cells) >= 0


@FEW
@given(file=st.sampled_from(FILES), changes=CHANGES, cut=CUT, value=st.none() | JSON)
def test_a_damaged_sweep(tmp_path, swept, file, changes, cut, value):
    folder = tmp_path / "swept"
    shutil.copytree(swept, folder, dirs_exist_ok=True)  # without what the case before has damaged
    path = next(folder.glob(file))
    content = path.read_bytes() if value is None else json.dumps(value).encode()
    path.write_bytes(damaged(content, changes, cut))
    looked_at(folder, read_plan(swept))


@FEW
@given(key=st.sampled_from([*KEY, "seed", "method", "acc2", "realised", "x"]),
       value=JSON, all_=st.booleans(), gone=st.booleans())  # fmt: skip
def test_odd_rows_of_a_cell(tmp_path, swept, key, value, all_, gone):
    folder = tmp_path / "swept"
    if not folder.exists():
        shutil.copytree(swept, folder)
    path, rows = next(folder.glob(FILES[1])), rows_of(read_plan(swept)[2])
    for row in rows if all_ else rows[:1]:
        if gone:
            row.pop(key, None)
        else:
            row[key] = value
    path.write_text(json.dumps(rows))
    looked_at(folder, read_plan(swept))


@example(content=[], changes=[], cut=0)  # JSON, but no table
@given(content=JSON, changes=CHANGES, cut=CUT)
def test_the_note_of_a_run(tmp_path, content, changes, cut):
    folder = tmp_path / "run"
    folder.mkdir(exist_ok=True)
    (folder / "run.json").write_bytes(damaged(json.dumps(content).encode(), changes, cut))
    assert tried(open_run, Settings(profile="smoke", out=str(folder), resume=True), ["staged"]) is None


WORDS = ["case", "method", "imder", "0.5", "seed", "1", '"', "é", "", "acc2", "text", "random", "protocol", "fixed",
         "recipe", "staged", "nan"]  # fmt: skip
TABLE = st.lists(st.lists(st.sampled_from(WORDS), max_size=6), max_size=4)


@given(lines=TABLE, name=st.sampled_from(["05_paper_all", "05_all_metrics", "05_fixed_mae"]), caption=JSON,
       changes=CHANGES, cut=CUT)  # fmt: skip
@example(lines=[["case"]], name="05_all_metrics", caption="\ud800", changes=[], cut=0)
def test_the_files_of_a_report(tmp_path, lines, name, caption, changes, cut):
    for part in ("tables", "figures", "notebooks"):
        (tmp_path / part).mkdir(exist_ok=True)
    for old in tmp_path.glob("*/05_*"):
        old.unlink()
    (tmp_path / "notebooks" / "05_tables.ipynb").write_text("{}")
    (tmp_path / "figures" / "05_1.png").write_bytes(b"png")
    (tmp_path / "figures" / "05_1.json").write_text(json.dumps({"caption": caption}))
    content = "\n".join(",".join(line) for line in lines).encode() or b"a"
    (tmp_path / "tables" / f"{name}.csv").write_bytes(damaged(content, changes, cut))
    tried(
        write_report, tmp_path, {"data": "x", "profile": "smoke", "seeds": [1], "device": "cpu", "seconds": 1}, "acc2"
    )


# Notebook parameters


LINES = st.sampled_from(["seed: int = 1  # help", 'out: str = "x"', "x: bool = True", "y: float = 1", "z: int = f()",
                         "a = 1", "(", "b: list = []", "s: int = -1", "'''", "c: float = 1e999", "\0"])  # fmt: skip


@given(lines=st.lists(LINES | st.text(max_size=6), max_size=4), given_=st.dictionaries(
    st.sampled_from(["seed", "out", "x", "y", "q"]), JSON, max_size=3), cells=JSON, odd=st.integers(0, 3))  # fmt: skip
def test_the_parameters_of_a_notebook(tmp_path, lines, given_, cells, odd):
    path = tmp_path / "n.ipynb"
    cell = {"cell_type": "code", "metadata": {"tags": ["parameters"]}, "source": "\n".join(lines)}
    content = [{"cells": [cell]}, {"cells": [cell, cells]}, {"cells": cells}, cells][odd]
    path.write_text(json.dumps(content))
    known, values = tried(notebook_parameters, path), tried(check_parameters, path, given_)
    if values is not None:
        assert all(repr(values[k]) == repr(v) for k, v in given_.items() if type(v).__name__ == known[k].type)
