"""index.html: figures and tables of a run on one page, which needs no server."""

import base64
import json
import re
from pathlib import Path

import jinja2
import pandas as pd

from imder_lib.errors import UserError
from imder_lib.experiment.training import BEST_EPOCH
from imder_lib.files import write_text
from imder_runs.headline import headline, read_results
from imder_runs.tables import METHOD_NAMES, METRIC_NAMES

TITLES = {"00": "Start here", "01": "Data", "03": "Recovery", "04": "Training", "05": "Missing-rate tables"}
LEGEND = {
    "00": "A model of handwritten digits, whatever the data of this run: its figure shows what recovery is.",
    "05": "rate is the nominal share of missing modalities, realised that of the masks. IMDer recovers by diffusion; "
    "mean and zero fill missing latents for the same fusion; constant is the training median; the Bayes limit, on "
    "synthetic data, is the best possible prediction.",
}
NAMES = METRIC_NAMES | METHOD_NAMES
METRICS = ("acc2", "f1", "acc7", "mae", "corr")  # in the order of the published tables
SHOWN = 60  # rows; longer tables are linked only


def write_report(folder: Path, provenance: dict[str, object], metric: str) -> Path:
    """Write FOLDER/index.html with the figures, tables and executed notebooks of the folder.

    The page opens with the results in ``metric`` and its figure.
    """
    results, sections, top = read_results(folder), [], []
    found = [part for protocol in ("fixed", "random") if (part := headline(results, protocol, metric))]
    for key, title in TITLES.items():
        notebooks = sorted((folder / "notebooks").glob(f"{key}_*.ipynb"))
        if notebooks:
            head = {"title": title, "legend": LEGEND.get(key), "notebook": notebooks[0].name, "trained": key != "01"}
            figures = _figures(folder, key)
            top += [f for f in figures if f["name"].endswith(f"_random_{metric}")]
            sections.append(head | {"figures": [f for f in figures if f not in top], "tables": _tables(folder, key)})
    text = json.dumps(provenance, indent=1)
    pages = jinja2.Environment(autoescape=True, loader=jinja2.FileSystemLoader(Path(__file__).parent))
    page = pages.get_template("report.html").render(
        p=provenance, found=found, top=top, sections=sections, provenance=text, rule=BEST_EPOCH
    )
    write_text(folder / "provenance.json", text)
    write_text(folder / "index.html", page)
    return folder / "index.html"


def _figures(folder: Path, key: str) -> list[dict[str, str]]:
    """Figures of a notebook: name, PNG in base64, and caption."""
    out = []
    number = lambda path: [int(x) if x.isdigit() else x for x in re.split(r"(\d+)", path.stem)]  # noqa: E731
    for path in sorted((folder / "figures").glob(f"{key}_*.png"), key=number):
        note = path.with_suffix(".json")
        try:
            caption = str(json.loads(note.read_text(encoding="utf-8"))["caption"])
            caption = caption.encode(errors="replace").decode()  # JSON can hold halves of characters
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            raise UserError(f"{note} is no caption of {path.name}: remove the figure, or make it again") from None
        out.append({"name": path.stem, "png": base64.b64encode(path.read_bytes()).decode(), "caption": caption})
    return out


def _tables(folder: Path, key: str) -> list[dict[str, object]]:
    """Tables of a notebook by protocol and in the order of METRICS; long ones last."""

    def place(path: Path) -> tuple[str, int]:
        rest, _, last = path.stem.rpartition("_")
        return (rest, METRICS.index(last)) if last in METRICS else (path.stem, 0)

    out = []
    for path in sorted((folder / "tables").glob(f"{key}_*.csv"), key=place):
        words = [METRIC_NAMES.get(word, word) for word in path.stem.split("_")[1:]]
        try:
            table = pd.read_csv(path, dtype=str, keep_default_na=False).rename(columns=NAMES)
        except (OSError, ValueError):
            raise UserError(f"{path} is no table that can be read: remove it, or make it again") from None
        table = table.assign(**{c: table[c].replace(NAMES) for c in ("method", "metric") if c in table})
        html = "" if len(table) > SHOWN else table.apply(_short).to_html(index=False, border=0)  # escapes all cells
        out.append({"name": " ".join(words), "file": path.stem, "rows": len(table), "html": html})
    return sorted(out, key=lambda t: not t["html"])


def _short(column: pd.Series) -> pd.Series:
    """Round a column to four decimals if it has numbers with more."""
    if not column.str.contains(r"\.\d{5}").any():
        return column
    numbers = pd.to_numeric(column, errors="coerce")
    return column.where(numbers.isna(), numbers.map("{:.4f}".format))
