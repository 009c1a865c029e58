"""The look of every figure: one style sheet, one colour, marker and line for each method, names for people."""

from typing import NamedTuple

import matplotlib.pyplot as plt

# Told apart by colour-blind readers (CIEDE2000 of any two at least 14) and at least 3 to 1 against white.
BLUE, GOLD, MAROON, SKY, BROWN = "#2166AC", "#B8860B", "#661100", "#5B8FF9", "#8C510A"
INDIGO, GREY, SILVER, BLACK = "#332288", "#555555", "#8A8A8A", "#000000"
MARKERS = "osD^vP*X"


class Method(NamedTuple):
    """How a method is drawn: never by its colour alone."""

    label: str
    colour: str
    marker: str
    line: str


METHODS = {
    "bayes": Method("Bayes limit", BLACK, "D", "--"),
    "imder": Method("IMDer", BLUE, "o", "-"),
    "released": Method("IMDer, released rules", BROWN, "X", "-"),
    "network": Method("network, one pass", INDIGO, "P", "-."),
    "regression": Method("linear regression", GOLD, "s", "-"),
    "dropout": Method("modality dropout", MAROON, "^", "-"),
    "mean": Method("mean fill", SKY, "v", "-."),
    "zero": Method("zero fill", SILVER, "<", "-."),
    "constant": Method("constant", GREY, "_", ":"),
}
METRIC_NAMES = {
    "acc2": "ACC2 (non-zero labels)",
    "f1": "weighted F1 (non-zero labels)",
    "acc7": "ACC7",
    "acc": "accuracy",
    "f1_weighted": "F1 weighted by class support",
    "f1_macro": "macro F1",
    "mae": "MAE (units of the label)",
    "corr": "Pearson correlation",
}
TRUTH = {"color": BLACK, "lw": 1.5, "ls": "--"}


def use_style() -> None:
    """The style sheet imder.mplstyle for all figures that follow."""
    plt.style.use("imder_lib.view.imder")
