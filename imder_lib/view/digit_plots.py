"""Figures of digits: being drawn out of noise, and many completions of one with what a classifier makes of each."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

RIGHT, WRONG = "#00664B", "#A03A00"  # green and red-brown that differ in lightness too; a cross marks the wrong


def _show(axis: Axes, image: np.ndarray, title: str = "", colour: str = "black") -> None:
    axis.imshow(np.ma.masked_invalid(image), cmap="Greys", vmin=-1, vmax=1, interpolation="nearest")
    axis.grid(False)
    axis.set_facecolor("#CFE3F2")  # what is not given
    axis.set(xticks=[], yticks=[])
    axis.set_title(title, color=colour)


def digit_strip(images: Sequence[np.ndarray], titles: Sequence[str]) -> Figure:
    """Images (8, 8) side by side, from -1 (white) to 1 (black) and what is beyond cut off; NaN is blue."""
    figure, axes = plt.subplots(1, len(images), figsize=(1.5 * len(images), 1.9), squeeze=False)
    for axis, image, title in zip(axes[0], images, titles, strict=True):
        _show(axis, image, title)
    return figure


def completions(
    truth: np.ndarray,
    given: np.ndarray,
    draws: np.ndarray,
    answers: np.ndarray,
    together: np.ndarray,
    labels: Sequence[int],
) -> Figure:
    """Digits, what is available of each, draws of the rest, and their mean; above each the class that it is given.

    Args:
        truth: (N, 8, 8).
        given: (N, 8, 8), NaN where missing.
        draws: (K, N, 8, 8).
        answers: whole (K, N), the class of each draw.
        together: whole (N,), the class of all draws together: it stands above their mean.
        labels: N true classes.
    """
    K, N = answers.shape
    figure, axes = plt.subplots(N, K + 3, figsize=(1.05 * (K + 3), 1.3 * N), squeeze=False)
    for n in range(N):
        _show(axes[n][0], truth[n], f"true {labels[n]}")
        _show(axes[n][1], given[n], "given")
        pictures, found = [*draws[:, n], draws[:, n].mean(0)], [*answers[:, n], together[n]]
        for k, (picture, answer) in enumerate(zip(pictures, found, strict=True)):
            right = answer == labels[n]
            title = f"{'all: ' * (k == K)}{answer}{'' if right else ' ×'}"
            _show(axes[n][k + 2], picture, title, RIGHT if right else WRONG)
    return figure
