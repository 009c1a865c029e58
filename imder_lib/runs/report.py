"""index.html: the figures and tables of a run on one page that opens from disk."""

import base64
import json
from pathlib import Path

import jinja2
import pandas as pd

from imder_lib.experiment.checkpoint import write_text

TITLES = {"01": "Data", "03": "Recovery", "04": "Training", "05": "Missing-rate tables"}

PAGE = jinja2.Environment(autoescape=True).from_string("""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>IMDer kit: {{ p.data }}, {{ p.profile }}</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>
 body { font: 16px/1.5 system-ui, sans-serif; color: #1a1a1a; max-width: 62rem; margin: 2rem auto; padding: 0 1rem }
 h1, h2 { line-height: 1.2 } h2 { margin-top: 2.5rem; border-bottom: 2px solid #0072B2 }
 figure { margin: 1.5rem 0 } img { max-width: 100%; height: auto } figcaption { color: #444 }
 .wide { overflow-x: auto } table { border-collapse: collapse; font-variant-numeric: tabular-nums; margin: .5rem 0 }
 th, td { padding: .25rem .7rem; border-bottom: 1px solid #ddd; text-align: right } th:first-child, td:first-child
 { text-align: left } .note { background: #fff6dd; border-left: 4px solid #E69F00; padding: .6rem 1rem }
 nav a { margin-right: 1rem }
</style></head><body>
<h1>IMDer kit: {{ p.data }}</h1>
<p>Profile <b>{{ p.profile }}</b>, seeds {{ p.seeds|join(", ") }}, {{ p.device }}, {{ "%.0f"|format(p.seconds) }} s.</p>
{% for note in p.notes %}<p class="note">{{ note }}</p>{% endfor %}
<nav>{% for s in sections %}<a href="#s{{ s.key }}">{{ s.title }}</a>{% endfor %}
<a href="#provenance">Provenance</a></nav>
{% for s in sections %}<h2 id="s{{ s.key }}">{{ s.title }}</h2>
{% for f in s.figures %}<figure><img alt="{{ f.caption }}" src="data:image/png;base64,{{ f.png }}">
<figcaption>{{ f.caption }}</figcaption></figure>
{% endfor %}{% for t in s.tables %}<h3>{{ t.name }}</h3><div class="wide">{{ t.html|safe }}</div>
<p><a href="tables/{{ t.file }}.csv">csv</a> <a href="tables/{{ t.file }}.md">md</a></p>
{% endfor %}<p><a href="notebooks/{{ s.notebook }}">the executed notebook</a></p>
{% endfor %}<h2 id="provenance">Provenance</h2><pre>{{ provenance }}</pre>
</body></html>
""")


def _title(stem: str) -> str:
    return stem.split("_", 1)[1].replace("_", " ")


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
        tables = []
        for path in sorted((folder / "tables").glob(f"{key}_*.csv")):
            table = pd.read_csv(path, dtype=str, keep_default_na=False)
            html = table.to_html(index=False, border=0)  # escapes every cell
            if len(table) <= 60:  # the long tidy table is for machines: linked by its short siblings' folder
                tables.append({"name": _title(path.stem), "file": path.stem, "html": html})
        notebooks = sorted((folder / "notebooks").glob(f"{key}_*.ipynb"))
        if notebooks:
            sections.append(
                {"key": key, "title": title, "figures": figures, "tables": tables, "notebook": notebooks[0].name}
            )
    page = PAGE.render(p=provenance, sections=sections, provenance=json.dumps(provenance, indent=1))
    write_text(folder / "provenance.json", json.dumps(provenance, indent=1))
    write_text(folder / "index.html", page)
    return folder / "index.html"
