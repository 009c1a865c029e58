"""Animations of reverse diffusion, for pages without a kernel: python -m tools.animations FOLDER writes both GIFs."""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.animation import FuncAnimation, PillowWriter
from matplotlib.figure import Figure

from imder_course.decoding import Decoder, image
from imder_course.mixture import Mixture
from imder_course.style import BLUE, SILVER, use_style
from imder_course.trajectory import trajectory
from imder_lib.diffusion.noise import SampleNoise
from imder_lib.diffusion.samplers import Sampler
from imder_lib.model.recovery import encode_split

HOLD = 12  # repetitions of the last frame


def save_gif(figure: Figure, draw, frames: int, path: Path) -> None:
    """Write a GIF of ``draw(frame)`` with the last frame repeated, and close the figure."""
    order = [*range(frames), *[frames - 1] * HOLD]
    same = {"savefig.bbox": None, "figure.constrained_layout.use": False}  # the same layout in all frames
    with plt.rc_context(same):
        FuncAnimation(figure, draw, order, blit=False).save(path, PillowWriter(fps=10), dpi=70)
    plt.close(figure)


def cloud_gif(states: Sequence[np.ndarray], levels: Sequence[float], data: np.ndarray, path: Path) -> None:
    """Animate points (N, 2) from noise to data, scaled to the standard deviation of the data at each level."""
    figure, axis = plt.subplots(figsize=(4.6, 4.2), layout="none")
    figure.subplots_adjust(left=0.06, right=0.99, top=0.92, bottom=0.06)
    axis.scatter(*data.T, s=5, color=SILVER, alpha=0.35, lw=0)
    dots = axis.scatter([], [], s=9, color=BLUE, lw=0)
    axis.set(xlim=(-4.5, 4.5), ylim=(-2.5, 5), xticks=[], yticks=[], xlabel="x", ylabel="c")
    size = data.std()

    def draw(k: int) -> None:
        dots.set_offsets(states[k] * size / np.hypot(size, levels[k]))
        axis.set_title(f"noise level sigma = {levels[k]:.2f}")

    save_gif(figure, draw, len(states), path)


def digits_gif(trajectory: Sequence[np.ndarray], levels: Sequence[float], truth: np.ndarray, path: Path) -> None:
    """Animate digits (S, N, 8, 8) whose bottom is recovered, above the true ones (N, 8, 8)."""
    figure, axes = plt.subplots(2, len(truth), figsize=(1.05 * len(truth), 2.6), layout="none")
    figure.subplots_adjust(left=0.08, right=0.99, top=0.85, bottom=0.02, wspace=0.08, hspace=0.1)
    shown = [[axis.imshow(truth[n], cmap="Greys", vmin=-1, vmax=1) for n, axis in enumerate(row)] for row in axes]
    for row, name in zip(axes, ("recovered", "true"), strict=True):
        row[0].set_ylabel(name)
        for axis in row:
            axis.set(xticks=[], yticks=[])
            axis.spines[:].set_visible(True)

    def draw(k: int) -> None:
        for picture, x in zip(shown[0], trajectory[k], strict=True):
            picture.set_data(x)
        figure.suptitle(f"the bottom is missing; noise level sigma = {levels[k]:.2f}", fontsize=10)

    save_gif(figure, draw, len(trajectory), path)


def main(folder: Path) -> None:
    from imder_runs.setup import start_run

    use_style()
    means = torch.tensor([[-2.0, 0.0], [2.0, 0.3], [0.0, 3.0]])
    mixture, noise = (
        Mixture(torch.tensor([0.35, 0.35, 0.3]), means, torch.full((3,), 0.5)),
        torch.Generator().manual_seed(1),
    )
    seen: list[tuple[float, np.ndarray]] = []
    keep = lambda step, s, x, denoised: seen.append((s.item(), x.numpy().copy()))  # noqa: E731
    x = Sampler("dpmpp_2m_sde", 50).draw(mixture.denoise, torch.zeros(600, 2), noise=noise, callback=keep)
    levels, states = zip(*seen, (0.0, x.numpy()), strict=True)
    cloud_gif(states, levels, mixture.sample(1500, noise).numpy(), folder / "reverse_diffusion.gif")

    with tempfile.TemporaryDirectory() as place, redirect_stdout(sys.stderr):
        run = start_run("digits", "quick", "1", place)
        model = run.train(1).model
    few = run.data.test.first(8)
    codes, decoder = encode_split(model, few), Decoder(model, run.data.steps)
    available = torch.tensor([[m != "bottom" for m in run.data.modalities]] * len(few))
    states = trajectory(
        model.recoverer, codes, available.to(codes["top"].device), SampleNoise(1, few.ids, "gif"), Sampler(steps=30)
    )
    pictures = [image({m: z.cpu().numpy() for m, z in decoder(noisy).items()}) for _, noisy, _ in states]
    digits_gif(pictures, [s for s, *_ in states], image(few.features), folder / "digits_from_noise.gif")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="of the GIFs; it exists")
    main(parser.parse_args().folder)
