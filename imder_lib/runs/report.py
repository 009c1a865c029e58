"""index.html: the figures and tables of a run on one page that opens from disk."""

import base64
import json
import re
from pathlib import Path

import jinja2
import pandas as pd

from imder_lib.experiment.checkpoint import write_text

TITLES = {"01": "Data", "03": "Recovery", "04": "Training", "05": "Missing-rate tables"}
LEGEND = {
    "05": "rate is the nominal share of missing modalities, realised what the masks came to. imder recovers by "
    "diffusion; mean and zero fill the gaps in front of the same fusion; constant is the training median; bayes, on "
    "synthetic data, is the limit that no method beats but by luck. ACC2 and F1 leave out labels of 0; MAE is in "
    "units of the label."
}
METRICS = ("acc2", "f1", "acc7", "mae", "corr")  # in the order of the published tables
NUMBER, LONG_NUMBER = re.compile(r"-?\d+(\.\d+)?(e-?\d+)?"), re.compile(r"-?\d+\.\d{5,}(e-?\d+)?")
SHOWN = 60  # rows; a longer table is for machines and only linked

PAGE = jinja2.Environment(autoescape=True).from_string("""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>IMDer kit: {{ p.data }}, {{ p.profile }}</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>
 :root { color-scheme: light; background: #fff }
 body { font: 16px/1.5 system-ui, sans-serif; color: #1a1a1a; max-width: 62rem; margin: 2rem auto; padding: 0 1rem }
 h1 { overflow-wrap: anywhere } pre { white-space: pre-wrap; overflow-wrap: anywhere }
 h1, h2 { line-height: 1.2 } h2 { margin-top: 2.5rem; border-bottom: 2px solid #0072B2 }
 figure { margin: 1.5rem 0 } img { max-width: 100%; height: auto } figcaption { color: #444 }
 .wide { overflow-x: auto } table { border-collapse: collapse; font-variant-numeric: tabular-nums; margin: .5rem 0 }
 th, td { padding: .25rem .7rem; border-bottom: 1px solid #ddd; text-align: right } th:first-child, td:first-child
 { text-align: left } .note { background: #fff6dd; border-left: 4px solid #E69F00; padding: .6rem 1rem }
 nav a { margin-right: 1rem }
 @media (max-width: 44rem) { figure img { max-width: none; width: 40rem } }
</style></head><body>
<h1>IMDer kit: {{ p.data }}</h1>
<p>Profile <b>{{ p.profile }}</b>, seeds {{ p.seeds|join(", ") }}, {{ p.device }}, {{ "%.0f"|format(p.seconds) }} s.</p>
{% for note in p.notes %}<p class="note">{{ note }}</p>{% endfor %}
<nav>{% for s in sections %}<a href="#s{{ s.key }}">{{ s.title }}</a>{% endfor %}
<a href="#provenance">Provenance</a></nav>
{% for s in sections %}<h2 id="s{{ s.key }}">{{ s.title }}</h2>
{% for f in s.figures %}<figure>
<div class="wide"><img alt="{{ f.caption }}" src="data:image/png;base64,{{ f.png }}"></div>
<figcaption>{{ f.caption }}</figcaption></figure>
{% endfor %}{% if s.legend %}<p>{{ s.legend }}</p>
{% endif %}{% for t in s.tables %}<h3>{{ t.name }}</h3>
{% if t.html %}<div class="wide">{{ t.html|safe }}</div>
{% endif %}<p>{% if not t.html %}{{ t.rows }} rows, not shown: {% endif %}<a href="tables/{{ t.file }}.csv">csv</a>
<a href="tables/{{ t.file }}.md">md</a></p>
{% endfor %}<p><a href="notebooks/{{ s.notebook }}">the executed notebook</a></p>
{% endfor %}<h2 id="provenance">Provenance</h2><pre>{{ provenance }}</pre>
</body></html>
""")


def _title(stem: str) -> str:
    """ "05_fixed_acc2" -> "fixed ACC2"."""
    return " ".join(word.upper() if word in METRICS else word for word in stem.split("_")[1:])


def _short(column: pd.Series) -> pd.Series:
    """A column with numbers of more than four decimals, rounded for the eye; any other as it is."""
    if not column.map(lambda cell: bool(LONG_NUMBER.fullmatch(cell))).any():
        return column
    return column.map(lambda cell: f"{float(cell):.4f}" if NUMBER.fullmatch(cell) else cell)


def _place(path: Path) -> tuple[str, int]:
    """Tables of one protocol stand together, in the order of METRICS; the rest by name."""
    rest, _, last = path.stem.rpartition("_")
    return (rest, METRICS.index(last)) if last in METRICS else (path.stem, 0)


def _tables(folder: Path, key: str) -> list[dict[str, object]]:
    out = []
    for path in sorted(folder.glob(f"{key}_*.csv"), key=_place):
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
        html = "" if len(table) > SHOWN else table.apply(_short).to_html(index=False, border=0)  # escapes every cell
        out.append({"name": _title(path.stem), "file": path.stem, "rows": len(table), "html": html})
    return sorted(out, key=lambda t: not t["html"])  # long ones last


def write_report(folder: Path, provenance: dict[str, object]) -> Path:
    """Collect FOLDER's figures, tables and executed notebooks into FOLDER/index.html."""
    sections = []
    for key, title in TITLES.items():
        figures = [
            {
                "png": base64.b64encode(path.read_bytes()).decode(),
                "caption": json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))["caption"],
            }
            for path in sorted((folder / "figures").glob(f"{key}_*.png"))
        ]
        notebooks = sorted((folder / "notebooks").glob(f"{key}_*.ipynb"))
        if notebooks:
            head = {"key": key, "title": title, "legend": LEGEND.get(key), "notebook": notebooks[0].name}
            sections.append(head | {"figures": figures, "tables": _tables(folder / "tables", key)})
    page = PAGE.render(p=provenance, sections=sections, provenance=json.dumps(provenance, indent=1))
    write_text(folder / "provenance.json", json.dumps(provenance, indent=1))
    write_text(folder / "index.html", page)
    return folder / "index.html"
