"""A start in closed form: principal components as encoders, ridge regression as the readout."""

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.linear_model import RidgeCV
from torch import Tensor

from imder_lib.data.schema import MultimodalData
from imder_lib.model.imder import KERNEL, IMDer
from imder_lib.nets.lengths import valid_steps

PENALTIES = np.logspace(-1, 5, 25)
WINDOWS = 30_000  # about so many tell the principal components


@torch.no_grad()
def closed_form_start(model: IMDer, data: MultimodalData, rows: Tensor, batch_size: int = 256) -> None:
    """Set encoders and readout so that an untrained model predicts what one ridge regression does.

    The ridge regression takes the time averages of all standardised features to the label; its penalty is chosen by
    leaving one sample out. Channel 0 of a modality's latents is the modality's part of it, the next ones are the
    principal components of its windows of three frames (at unit variance on average), the rest are zero. A component
    counts only if it is larger than any that features without correlations would show (parallel analysis, Horn, 1965):
    what is below fits the noise of the training samples. The readout adds the channels 0, everything else of the
    prediction starts at zero.

    Args:
        model: with a readout; changed in place.
        data: of the model's modalities.
        rows: (n,) of the training split, those whose every modality may be read.
    """
    pooled, components = _statistics(model, data, rows, batch_size)
    mean, std = {m: x.mean(0) for m, x in pooled.items()}, {m: x.std(0) for m, x in pooled.items()}
    std = {m: np.where(s > 1e-6 * (1 + np.abs(mean[m])), s, np.inf) for m, s in std.items()}  # a constant tells nothing
    inputs = np.concatenate([(pooled[m] - mean[m]) / std[m] for m in model.modalities], axis=1)
    ridge = RidgeCV(PENALTIES).fit(inputs, np.asarray(data.train.labels)[rows.numpy()])
    splits = np.cumsum([pooled[m].shape[1] for m in model.modalities])[:-1]
    parts = dict(zip(model.modalities, np.split(ridge.coef_, splits), strict=True))
    readout, bias, D = model.fusion.readout, float(ridge.intercept_), model.config.dim
    for p in (readout.weight, model.fusion.out.weight, model.fusion.out.bias):
        p.zero_()
    for i, m in enumerate(model.modalities):
        if m not in model.encoders:  # as wide as the latents already: nothing to choose
            continue
        weight = parts[m] / std[m]
        size = max((pooled[m] @ weight).std(), 1e-6)
        kernel = np.zeros((D, len(weight), KERNEL))
        kernel[0, :, KERNEL // 2] = weight / size
        kernel[1 : 1 + len(components[m])] = components[m][: D - 1].reshape(-1, len(weight), KERNEL)
        model.encoders[m].weight.copy_(torch.from_numpy(kernel))
        readout.weight[:, i * D] = size
        bias -= float(weight @ mean[m])
    readout.bias.fill_(bias)


def _statistics(
    model: IMDer, data: MultimodalData, rows: Tensor, batch_size: int
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Of each modality: time averages (n, D_m) over the steps that have latents; principal components of windows."""
    pooled: dict[str, list[np.ndarray]] = {m: [] for m in model.modalities}
    moments = {m: (_Moments(), _Moments()) for m in model.modalities}
    stride = max(1, len(rows) * data.steps // WINDOWS)  # every so many samples give windows
    generator = torch.Generator().manual_seed(0)
    for part in rows.split(batch_size):
        batch = data.train.batch(part.numpy())
        for m in model.modalities:
            x = batch.features[m].double()  # (B, T, D_m)
            x = F.pad(x, (0, 0, 1, 1)) if x.shape[1] < KERNEL else x
            x = x.unfold(1, KERNEL, 1)  # (B, T', D_m, KERNEL), what one latent step sees
            if batch.lengths is not None and model.config.lengths:
                lost = data.steps - x.shape[1]
                x = x * valid_steps((batch.lengths[m] - lost).clamp(min=1), x.shape[1])[:, 0, :, None, None]
            centre = x[..., KERNEL // 2]
            counts = centre.ne(0).any(dim=2)  # (B, T')
            pooled[m].append((centre.sum(1) / counts.sum(1, keepdim=True).clamp(min=1)).numpy())
            some = x[::stride]
            order = torch.rand(len(some), some.shape[2], generator=generator).argsort(dim=0)  # of each feature, its own
            mixed = some.gather(0, order[:, None, :, None].expand_as(some))
            for own, windows in zip(moments[m], (some, mixed), strict=True):
                own.add(windows[counts[::stride]].flatten(1).numpy())
    keep = model.config.dim - 1
    return {m: np.concatenate(x) for m, x in pooled.items()}, {m: _components(*x, keep) for m, x in moments.items()}


class _Moments:
    """First and second moments of windows that come in parts."""

    def __init__(self) -> None:
        self.count, self.total, self.products = 0, 0.0, 0.0

    def add(self, windows: np.ndarray) -> None:
        self.count += len(windows)
        self.total, self.products = self.total + windows.sum(0), self.products + windows.T @ windows

    def correlation(self) -> tuple[np.ndarray, np.ndarray]:
        """Correlation matrix, and standard deviations; infinite where nothing varies."""
        mean = self.total / max(self.count, 1)
        covariance = self.products / max(self.count, 1) - np.outer(mean, mean)
        std = np.sqrt(np.maximum(np.diag(covariance), 0))
        std = np.where(std > 1e-6 * (1 + np.abs(mean)), std, np.inf)
        return covariance / np.outer(std, std), std


def _components(own: _Moments, mixed: _Moments, keep: int) -> np.ndarray:
    """At most ``keep`` principal components of standardised windows, largest first, as rows over raw windows.

    ``mixed``: of windows whose features come from different samples each; the largest component there is the floor.
    """
    correlation, std = own.correlation()
    floor = max(np.linalg.eigvalsh(mixed.correlation()[0])[-1], 1e-6)
    values, vectors = np.linalg.eigh(correlation)
    values, vectors = values[::-1][:keep], vectors[:, ::-1][:, :keep]
    rows = vectors[:, values > floor].T / std
    return rows / max(np.sqrt(values[: len(rows)].mean()), 1e-6) if len(rows) else rows
