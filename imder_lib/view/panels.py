"""Explorer panels: a few controls over a pure figure function. Live in JupyterLab; headless, one picture."""

import html
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping

import ipywidgets as widgets
import numpy as np
import pandas as pd
import torch
from IPython.display import display
from matplotlib.figure import Figure

from imder_lib.data.schema import Split
from imder_lib.diffusion.noise import SampleNoise
from imder_lib.diffusion.samplers import SAMPLERS, Sampler
from imder_lib.errors import UserError
from imder_lib.model.imder import IMDer
from imder_lib.model.joint import JointDiffusion
from imder_lib.model.recovery import Latents, encode_split
from imder_lib.view.panel_plots import Recovery, draw_png, missing_rate_view, recovery_view
from imder_lib.view.style import METHODS, METRIC_NAMES

LEVELS = (40.0, 20.0, 10.0, 5.0, 2.0, 1.0, 0.5, 0.2, 0.1, 0.0)
WIDE = {"style": {"description_width": "7em"}, "layout": {"width": "auto"}}
TICK = {"indent": False, "layout": {"width": "auto", "margin": "2px 1.5em 2px 2px"}}


class Panel(ABC):
    """Controls and one figure that follows them.

    Attributes:
        controls: name -> widget; :meth:`figure` reads their values.
        box: what is shown in a live notebook.
        message: why the figure stands still, if it does.
    """

    alt = "explorer panel"

    def __init__(self, controls: Mapping[str, widgets.Widget]) -> None:
        self.controls, self.picture, self.message = dict(controls), widgets.HTML(), widgets.HTML()
        for control in self.controls.values():
            control.observe(self._changed, "value")
        ticks = [c for c in self.controls.values() if isinstance(c, widgets.Checkbox)]
        others = [c for c in self.controls.values() if c not in ticks]
        columns = "repeat(auto-fit, minmax(250px, 1fr))"  # as many as the window has room for
        grid = widgets.GridBox(others, layout={"grid_template_columns": columns, "align_items": "center"})
        row = widgets.Box(ticks, layout={"flex_flow": "row wrap"})
        self.message.layout.min_height = "2em"  # the figure stays where it is when a message comes
        self.box = widgets.VBox([grid, row, self.message, self.picture], layout={"max_width": "960px"})
        self.refresh()

    @abstractmethod
    def figure(self) -> Figure:
        """The figure of the controls' present values. Raises UserError where they allow none."""

    def value(self, name: str) -> object:
        return self.controls[name].value

    def refresh(self) -> None:
        """Draw anew; values that allow no figure leave the last one and say why."""
        try:
            code = draw_png(self.figure)
        except UserError as error:
            self.message.value = f"<b>{html.escape(str(error))}</b>"
            return
        self.message.value = ""
        style = "max-width: 100%; height: auto"
        self.picture.value = f'<img alt="{html.escape(self.alt)}" style="{style}" src="data:image/png;base64,{code}">'

    def _changed(self, change: object) -> None:
        self.refresh()

    def show(self, save: Callable[[Figure, str, str], object], name: str, caption: str) -> None:
        """The live panel; where no one can move it (a headless run), its figure by ``save(figure, name, caption)``."""
        self.alt = caption
        if os.environ.get("IMDER_HEADLESS"):
            save(self.figure(), name, caption)
            return
        self.refresh()
        display(self.box)

    def close(self) -> None:
        """Take the widgets away; the panel is of no use after that."""
        for widget in (*self.controls.values(), *self.box.children, self.box):
            for part in (widget.layout, getattr(widget, "style", None), widget):
                if part is not None:
                    part.close()


class RecoveryPanel(Panel):
    """One sample's recovery: what is dropped, how it is drawn, and what becomes of it.

    Args:
        model: trained under rules with net "joint"; never changed.
        split: samples to choose from, the first ``limit``.
        missing: dropped at the start.
        pictures: latents of one sample, modality -> (D, T), to a picture (H, W), NaN where a modality is not given;
            None: the standardised latent of the first missing modality.
        seed: of the draws.
    """

    def __init__(
        self,
        model: IMDer,
        split: Split,
        missing: str,
        pictures: Callable[[Latents], np.ndarray] | None = None,
        seed: int = 1,
        limit: int = 100,
    ) -> None:
        if not isinstance(model.recoverer, JointDiffusion):
            raise UserError("the panel trajectories with net 'joint': give a model under the kit's rules")
        if missing not in model.modalities:
            raise UserError(f"missing must be one of {list(model.modalities)}, got {missing!r}")
        self.model, self.split, self.pictures, self.seed = model.eval(), split.first(limit), pictures, seed
        self.latents = encode_split(model, self.split)
        self.scaled = model.recoverer.standardizer(self.latents).cpu().numpy()  # (N, M, D, T)
        self.key: tuple = ()
        slider = {"continuous_update": False, **WIDE}
        controls = {"sample": widgets.IntSlider(0, 0, len(self.split) - 1, description="sample", **slider)}
        for m in model.modalities:
            controls[m] = widgets.Checkbox(m != missing, description=f"{m} available", **TICK)
        controls |= {
            "level": widgets.SelectionSlider(options=LEVELS, value=1.0, description="noise level", **slider),
            "sampler": widgets.Dropdown(
                options=list(SAMPLERS), value=model.config.sampler.name, description="sampler", **WIDE
            ),
            "steps": widgets.SelectionSlider(options=(2, 5, 10, 20), value=20, description="network calls", **slider),
            "draws": widgets.IntSlider(4, 1, 8, description="draws", **slider),
            "guidance": widgets.FloatSlider(1.0, min=0, max=3, step=0.5, description="guidance", **slider),
        }
        super().__init__(controls)

    def figure(self) -> Figure:
        return recovery_view(self.seen())

    def seen(self) -> Recovery:
        """What the figure shows; the trajectory is taken anew only if what it depends on has changed."""
        names = ("sample", *self.model.modalities, "sampler", "steps", "draws", "guidance")
        key = tuple(self.value(name) for name in names)
        if key != self.key:
            self._draw_trajectory()
            self.key = key
        at = next(i for i, (sigma, *_) in enumerate(self.path) if sigma <= float(self.value("level")) + 1e-9)
        n, missing = int(self.value("sample")), self.missing[0]
        i, draw = self.model.modalities.index(missing), self.model.recoverer.standardizer
        sigma, noisy, _ = self.path[at]
        used = draw.varies[i, :, 0].bool().cpu()  # the other channels never change
        states = draw(noisy)[:, i].cpu()[:, used].numpy()  # (K, D, T)
        entries = np.stack(
            [draw(denoised)[:, i].cpu()[:, used].numpy() for _, _, denoised in self.path]
        )  # (S, K, D, T)
        true = self.scaled[n, i][used.numpy()]
        d, t = np.unravel_index(np.abs(entries[-1].mean(0)).argmax(), states.shape[1:])
        return Recovery(
            pictures=self._pictures(n, missing, noisy, sigma),
            sigma=sigma,
            values={"true": true.ravel(), f"draws at {sigma:.2g}": states.ravel()},
            levels=np.array([s for s, *_ in self.path]),
            trajectories=entries[:, :, d, t].T,
            entry=float(true[d, t]),
            prediction=self.prediction,
            label=float(self.split.labels[n]),
        )

    @torch.no_grad()
    def _draw_trajectory(self) -> None:
        here = {m: bool(self.value(m)) for m in self.model.modalities}
        missing = [m for m, available in here.items() if not available]
        if len(missing) in (0, len(here)):
            raise UserError("drop one modality at least" if not missing else "one modality at least must stay")
        n, K = int(self.value("sample")), int(self.value("draws"))
        drawer, name, own = self.model.recoverer, str(self.value("sampler")), self.model.config.sampler
        sampler = Sampler(
            name, int(self.value("steps")), own.schedule, own.settings if name == own.name else {},
            float(self.value("guidance")),
        )  # fmt: skip
        latents = {m: x[n : n + 1].expand(K, -1, -1) for m, x in self.latents.items()}
        available = torch.tensor([list(here.values())] * K, device=next(iter(latents.values())).device)
        noise = SampleNoise(self.seed, [f"{self.split.ids[n]}#{k}" for k in range(K)], "panel")
        self.path, self.missing = drawer.trajectory(latents, available, noise, sampler), missing
        logits = self.model.fusion(self.model.refined(self.path[-1][1], available))[0]
        answer = logits[:, 0] if self.model.config.outputs == 1 else logits.softmax(dim=1)
        self.prediction = answer.cpu().numpy()

    def _pictures(self, n: int, missing: str, noisy: Latents, sigma: float) -> dict[str, np.ndarray]:
        i = self.model.modalities.index(missing)
        scale = self.model.recoverer.standardizer
        used = scale.varies[i, :, 0].bool()
        show = self.pictures or (lambda one: scale({m: x[None] for m, x in one.items()})[0, i][used].cpu().numpy())
        true = {m: x[n] for m, x in self.latents.items()}
        found = {"true": show(true)}
        if self.pictures is not None:
            found["given"] = show({m: x for m, x in true.items() if m not in self.missing})
        found[f"draw at sigma {sigma:.2g}"] = show({m: x[0] for m, x in noisy.items()})
        drawn = self.path[-1][1]
        return found | {
            "the draw": show({m: x[0] for m, x in drawn.items()}),
            "mean of the draws": show({m: x.mean(0) for m, x in drawn.items()}),
        }


class MissingRatePanel(Panel):
    """Methods against the missing rate.

    Args:
        table: of :func:`imder_lib.evaluate`, with protocol "random".
        metrics: columns to choose from; the first is shown at the start.
    """

    def __init__(self, table: pd.DataFrame, metrics: list[str]) -> None:
        self.table = table[table["protocol"] == "random"]
        if self.table.empty:
            raise UserError("the table has no rows of protocol 'random': evaluate with it")
        rates = sorted(self.table["rate"].unique().tolist())
        self.methods = [m for m in METHODS if (self.table["method"] == m).any()]
        names = [(METRIC_NAMES.get(m, m), m) for m in metrics]
        controls = {
            "rate": widgets.SelectionSlider(
                options=rates, value=rates[len(rates) // 2], description="missing rate", continuous_update=False,
                **WIDE,
            ),
            "metric": widgets.Dropdown(options=names, value=metrics[0], description="metric", **WIDE),
        }  # fmt: skip
        controls |= {m: widgets.Checkbox(True, description=METHODS[m].label, **TICK) for m in self.methods}
        super().__init__(controls)

    def figure(self) -> Figure:
        shown = [m for m in self.methods if self.value(m)]
        if not shown:
            raise UserError("choose one method at least")
        return missing_rate_view(self.table, str(self.value("metric")), shown, float(self.value("rate")))
