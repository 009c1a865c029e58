"""Explorer panels: interactive figures with controls, in JupyterLab."""

import html
import traceback
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

import ipywidgets as widgets
import numpy as np
import pandas as pd
import torch
from IPython.display import display
from matplotlib.figure import Figure
from torch import Tensor

from imder_course import panel_plots as plots
from imder_course.style import METHODS, METRIC_NAMES
from imder_course.trajectory import trajectory
from imder_lib.data.schema import Split
from imder_lib.diffusion.noise import SampleNoise
from imder_lib.diffusion.samplers import SAMPLERS, Sampler
from imder_lib.errors import UserError
from imder_lib.model.imder import IMDer
from imder_lib.model.joint import JointDiffusion
from imder_lib.model.recovery import Latents, encode_split

SAMPLES = 100  # samples of the split that can be selected
LEVELS = (40.0, 20.0, 10.0, 5.0, 2.0, 1.0, 0.5, 0.2, 0.1, 0.0)
Pictures = Callable[[Latents], np.ndarray]  # latents of one sample, modality -> (D, T), to a picture (H, W)


def _wide(kind: type, name: str, *values: Any, **options: Any) -> widgets.Widget:
    """A labelled control; a slider triggers a redraw when it is released."""
    if kind is not widgets.Dropdown:
        options["continuous_update"] = False
    return kind(*values, description=name, style={"description_width": "7em"}, layout={"width": "auto"}, **options)


def _tick(name: str, value: bool = True) -> widgets.Checkbox:
    layout = {"width": "auto", "margin": "2px 1.5em 2px 2px"}
    return widgets.Checkbox(value, description=name, indent=False, layout=layout)


class Panel(ABC):
    """Controls and a figure that is redrawn when a control changes.

    Attributes:
        controls: name -> widget; :meth:`figure` reads their values.
        picture: the last figure.
        message: error of the last redraw, or empty.
    """

    def __init__(self, controls: Mapping[str, widgets.Widget]) -> None:
        self.controls, self.alt, self.picture = dict(controls), "explorer panel", widgets.HTML()
        self.message = widgets.HTML(layout={"min_height": "2em"})  # so a message does not move the figure
        for control in self.controls.values():
            control.observe(lambda change: self.refresh(), "value")

    @abstractmethod
    def figure(self) -> Figure:
        """The figure for the current values of the controls; a UserError if they are invalid."""

    def value(self, name: str) -> Any:
        return self.controls[name].value

    def refresh(self) -> None:
        """Redraw. On an error the last figure stays and the message shows the error."""
        try:
            code = plots.draw_png(self.figure)
        except Exception as error:
            text = str(error)
            if not isinstance(error, UserError):
                traceback.print_exc()  # JupyterLab shows it in its log console
                text = f"{type(error).__name__}: {text}".splitlines()[0]
            self.message.value = f"<b>{html.escape(text)}</b>"
            return
        self.message.value = ""
        style = "max-width: 100%; height: auto"
        self.picture.value = f'<img alt="{html.escape(self.alt)}" style="{style}" src="data:image/png;base64,{code}">'

    def show(self, save: Callable[[Figure, str, str], object], name: str, caption: str, live: bool) -> None:
        """Show the panel. If not ``live``, call ``save(figure, name, caption)`` instead."""
        if not live:
            save(self.figure(), name, caption)
            return
        self.alt = caption
        self.refresh()
        ticks = [c for c in self.controls.values() if isinstance(c, widgets.Checkbox)]
        others = [c for c in self.controls.values() if c not in ticks]
        columns = "repeat(auto-fit, minmax(250px, 1fr))"  # as many columns as fit into the window
        grid = widgets.GridBox(others, layout={"grid_template_columns": columns, "align_items": "center"})
        row = widgets.Box(ticks, layout={"flex_flow": "row wrap"})
        display(widgets.VBox([grid, row, self.message, self.picture], layout={"max_width": "960px"}))


class RecoveryPanel(Panel):
    """Recovery of one sample: true and drawn latents, trajectories and predictions.

    Args:
        model: trained with net "joint"; not changed.
        split: the first 100 samples can be selected.
        missing: the initially missing modality.
        pictures: makes a picture of latents, NaN where a modality is missing; None: shows the standardised latents of
            the first missing modality.
        seed: of the draws.

    Attributes:
        ticks: modality -> its control, whether it is available.
        missing: the missing modalities.
        path: (sigma, noisy latents, denoised latents) of each network call, then (0, drawn, drawn); K draws each.
        prediction: (K,) numbers, or (K, C) probabilities of classes.
    """

    def __init__(
        self, model: IMDer, split: Split, missing: str, pictures: Pictures | None = None, seed: int = 1
    ) -> None:
        if not isinstance(model.recoverer, JointDiffusion):
            raise UserError("the panel needs a model with net 'joint', one under the kit's rules")
        if missing not in model.modalities:
            raise UserError(f"missing must be one of {list(model.modalities)}, got {missing!r}")
        self.model, self.split, self.pictures, self.seed = model.eval(), split.first(SAMPLES), pictures, seed
        self.latents = encode_split(model, self.split)
        self.drawn_with: dict[str, object] = {}
        sample = {"sample": _wide(widgets.IntSlider, "sample", 0, 0, len(self.split) - 1)}
        own = model.config.sampler
        usual = Sampler().steps  # also where the run has fewer calls: the noise level moves from call to call
        calls = sorted({2, 5, 10, 20, usual})
        controls = {
            "level": _wide(widgets.SelectionSlider, "noise level", options=LEVELS, value=1.0),
            "sampler": _wide(widgets.Dropdown, "sampler", options=list(SAMPLERS), value=own.name),
            "steps": _wide(widgets.SelectionSlider, "network calls", options=calls, value=usual),
            "draws": _wide(widgets.IntSlider, "draws", 4, 1, 8),
            "guidance": _wide(widgets.FloatSlider, "guidance", own.guidance, min=0, max=max(3, own.guidance), step=0.5),
        }
        self.ticks, taken = {m: _tick(f"{m} available", m != missing) for m in model.modalities}, sample | controls
        # A modality may have the name of another control.
        ticks = {f"{m} available" if m in taken else m: tick for m, tick in self.ticks.items()}
        super().__init__(sample | ticks | controls)

    def figure(self) -> Figure:
        """The figure for the current values; recovers again only if a control other than the level has changed."""
        drawn_with = {name: self.value(name) for name in self.controls if name != "level"}
        if drawn_with != self.drawn_with:
            self._draw()
            self.drawn_with = drawn_with
        n, i = self.value("sample"), self.model.modalities.index(self.missing[0])
        sigma, noisy, _ = next(step for step in self.path if step[0] <= self.value("level") + 1e-9)
        true = self._scaled({m: x[n : n + 1] for m, x in self.latents.items()}, i)[0]
        denoised = np.stack([self._scaled(latents, i) for *_, latents in self.path])  # (S, K, D, T)
        d, t = np.unravel_index(np.abs(denoised[-1].mean(0)).argmax(), true.shape)  # the entry of largest mean
        figure, (left, middle, right) = plots.recovery_figure(self._pictures(n, i, noisy, sigma))
        plots.draw_densities(left, true, self._scaled(noisy, i), sigma)
        levels = np.array([level for level, *_ in self.path])
        plots.draw_trajectories(middle, levels, denoised[:, :, d, t], true[d, t], sigma)
        draw_answer = plots.draw_numbers if self.model.config.fusion.outputs == 1 else plots.draw_classes
        draw_answer(right, self.prediction, float(self.split.labels[n]))
        return figure

    @torch.no_grad()
    def _draw(self) -> None:
        given = [tick.value for tick in self.ticks.values()]
        if all(given) or not any(given):
            raise UserError(f"at least one modality must be {'missing' if all(given) else 'available'}")
        n, K = self.value("sample"), self.value("draws")
        latents = {m: x[n : n + 1].expand(K, -1, -1) for m, x in self.latents.items()}
        available = torch.tensor([given] * K, device=next(iter(latents.values())).device)
        noise = SampleNoise(self.seed, [f"{self.split.ids[n]}#{k}" for k in range(K)], "panel")
        path = self._trajectory(latents, available, noise)
        logits = self.model.fusion(self.model.refined(path[-1][1], available))[0]
        prediction = logits[:, 0] if self.model.config.fusion.outputs == 1 else logits.softmax(dim=1)
        self.missing = [m for m, tick in self.ticks.items() if not tick.value]
        self.path, self.prediction = path, prediction.cpu().numpy()

    def _trajectory(self, latents: Latents, available: Tensor, noise: SampleNoise) -> list:
        """Trajectory with the sampler that the controls select."""
        own, name = self.model.config.sampler, self.value("sampler")
        settings = own.settings if name == own.name else {}
        sampler = Sampler(name, self.value("steps"), own.schedule, settings, self.value("guidance"))
        return trajectory(self.model.recoverer, latents, available, noise, sampler)

    def _scaled(self, latents: Latents, i: int) -> np.ndarray:
        """Standardised latents of modality i, (B, D, T), without constant channels."""
        scale = self.model.recoverer.standardizer
        return scale(latents)[:, i, scale.varies[i, :, 0].bool()].cpu().numpy()

    def _pictures(self, n: int, i: int, noisy: Latents, sigma: float) -> dict[str, np.ndarray]:
        show = self.pictures or (lambda one: self._scaled({m: x[None] for m, x in one.items()}, i)[0])
        true, drawn = {m: x[n] for m, x in self.latents.items()}, self.path[-1][1]
        found = {"true": show(true)}
        if self.pictures is not None:
            found["given"] = show({m: x for m, x in true.items() if m not in self.missing})
        return found | {
            f"draw at sigma {sigma:.2g}": show({m: x[0] for m, x in noisy.items()}),
            "the draw": show({m: x[0] for m, x in drawn.items()}),
            "mean of the draws": show({m: x.mean(0) for m, x in drawn.items()}),
        }


class MissingRatePanel(Panel):
    """A metric of the methods against the missing rate.

    Args:
        table: result of :func:`imder_lib.evaluate`, with protocol "random".
        metrics: selectable columns; the first is selected initially.
    """

    def __init__(self, table: pd.DataFrame, metrics: list[str]) -> None:
        self.table = table[table["protocol"] == "random"]
        if self.table.empty:
            raise UserError("the table has no rows of protocol 'random': add it to the protocols of evaluate")
        rates = sorted(self.table["rate"].unique().tolist())
        self.methods = [m for m in METHODS if (self.table["method"] == m).any()]
        names = [(METRIC_NAMES.get(m, m), m) for m in metrics]
        rate = _wide(widgets.SelectionSlider, "missing rate", options=rates, value=rates[len(rates) // 2])
        metric = _wide(widgets.Dropdown, "metric", options=names, value=metrics[0])
        super().__init__({"rate": rate, "metric": metric} | {m: _tick(METHODS[m].label) for m in self.methods})

    def figure(self) -> Figure:
        shown = [m for m in self.methods if self.value(m)]
        if not shown:
            raise UserError("select at least one method")
        table = self.table[self.table["method"].isin(shown)]
        return plots.missing_rate_view(table, self.value("metric"), self.value("rate"))
