"""Where notebooks, data and pretrained models lie: in a checkout, or else in the package and in the current folder."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CHECKOUT = (ROOT / "pyproject.toml").is_file()  # False: installed from a wheel
NOTEBOOKS = (ROOT if CHECKOUT else ROOT / "imder_course") / "notebooks"
HOME = ROOT if CHECKOUT else Path.cwd()  # of data/ and pt/
