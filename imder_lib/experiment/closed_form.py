"""A start in closed form: principal components as encoders, ridge regression as the readout."""

import numpy as np
import torch
from sklearn.linear_model import RidgeCV
from torch import Tensor

from imder_lib.data.schema import MultimodalData
from imder_lib.model.imder import KERNEL, IMDer
from imder_lib.nets.lengths import valid_steps

PENALTIES = np.logspace(-1, 5, 25)


@torch.no_grad()
def closed_form_start(model: IMDer, data: MultimodalData, rows: Tensor, batch_size: int = 256) -> None:
    """Set encoders and readout so that an untrained model predicts what one ridge regression does.

    The ridge regression takes the time averages of all standardised features to the label; its penalty is chosen by
    leaving one sample out. Channel 0 of a modality's latents is the modality's part of it, the next ones are the
    principal components of single frames (at unit variance on average), the rest keep their random weights. The
    readout adds the channels 0, everything else of the prediction starts at zero.

    Args:
        model: with a readout; changed in place.
        data: of the model's modalities.
        rows: (n,) of the training split, those whose every modality may be read.
    """
    pooled, moments = _moments(model, data, rows, batch_size)
    each = {m: np.concatenate(x) for m, x in pooled.items()}
    mean, std = {m: x.mean(0) for m, x in each.items()}, {m: x.std(0) for m, x in each.items()}
    std = {m: np.where(s > 1e-6 * (1 + np.abs(mean[m])), s, np.inf) for m, s in std.items()}  # a constant tells nothing
    inputs = np.concatenate([(each[m] - mean[m]) / std[m] for m in model.modalities], axis=1)
    ridge = RidgeCV(PENALTIES).fit(inputs, np.asarray(data.train.labels)[rows.numpy()])
    splits = np.cumsum([each[m].shape[1] for m in model.modalities])[:-1]
    parts = dict(zip(model.modalities, np.split(ridge.coef_, splits), strict=True))
    readout, bias = model.fusion.readout, float(ridge.intercept_)
    for p in (readout.weight, model.fusion.out.weight, model.fusion.out.bias):
        p.zero_()
    for i, m in enumerate(model.modalities):
        if m not in model.encoders:  # as wide as the latents already: nothing to choose
            continue
        weight = parts[m] / std[m]
        size = max((each[m] @ weight).std(), 1e-6)
        frames = _components(moments[m])[: model.config.dim - 1]
        kernel = np.concatenate([weight[None] / size, frames])
        own = model.encoders[m].weight
        own[: len(kernel)] = 0
        own[: len(kernel), :, KERNEL // 2] = torch.from_numpy(kernel).to(own)
        readout.weight[:, i * model.config.dim] = size
        bias -= float(weight @ mean[m])
    readout.bias.fill_(bias)


def _moments(
    model: IMDer, data: MultimodalData, rows: Tensor, batch_size: int
) -> tuple[dict[str, list[np.ndarray]], dict[str, list]]:
    """Of each modality: time averages (n, D_m) over the steps that have latents; count, sum and products of frames."""
    pooled: dict[str, list[np.ndarray]] = {m: [] for m in model.modalities}
    moments: dict[str, list] = {m: [0, 0.0, 0.0] for m in model.modalities}
    for part in rows.split(batch_size):
        batch = data.train.batch(part.numpy())
        for m in model.modalities:
            x = batch.features[m].double()  # (B, T, D_m)
            cut = KERNEL // 2 if x.shape[1] >= KERNEL else 0
            lengths = batch.lengths[m] - 2 * cut if batch.lengths is not None and model.config.lengths else None
            x = x[:, cut : x.shape[1] - cut]
            if lengths is not None:
                x = x * valid_steps(lengths.clamp(min=1), x.shape[1]).transpose(1, 2)
            counts = x.ne(0).any(dim=2)  # (B, T')
            pooled[m].append((x.sum(1) / counts.sum(1, keepdim=True).clamp(min=1)).numpy())
            frames = x[counts].numpy()
            own = moments[m]
            own[:] = own[0] + len(frames), own[1] + frames.sum(0), own[2] + frames.T @ frames
    return pooled, moments


def _components(moments: list) -> np.ndarray:
    """Principal components of standardised frames as rows over raw features: (D_m, D_m), largest first."""
    count, total, products = moments
    mean = total / max(count, 1)
    covariance = products / max(count, 1) - np.outer(mean, mean)
    std = np.sqrt(np.maximum(np.diag(covariance), 0))
    std = np.where(std > 1e-6 * (1 + np.abs(mean)), std, np.inf)
    values, vectors = np.linalg.eigh(covariance / np.outer(std, std))
    rows = vectors.T[::-1] / std
    return rows / max(np.sqrt(np.mean(values[values > 1e-9 * values.max()])), 1e-6)
