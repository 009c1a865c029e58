"""The start of the first stage: encoders that keep what fits into D channels, and a readout of time averages."""

import warnings
from collections.abc import Iterator

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import RidgeCV
from sklearn.neural_network import MLPRegressor
from torch import Tensor

from imder_lib.data.schema import MultimodalData, Split
from imder_lib.model.imder import IMDer
from imder_lib.nets.fusion import HIDDEN
from imder_lib.nets.lengths import valid_steps

PENALTIES = np.logspace(-1, 5, 25)


@torch.no_grad()
def fit_encoders(model: IMDer, data: MultimodalData, rows: Tensor, batch_size: int = 256) -> None:
    """Set the encoders to principal components of single frames, ordered by variance.

    Features are standardised first, and the channels of a modality have variance 1 on average. A modality that is no
    wider than D loses nothing: its encoder is a rotation. Of a wider one, the first channels are what a ridge
    regression reads the label from (one channel, or one for each class), so that what the label needs is kept even
    where it varies little; the components fill the rest.

    Args:
        model: with encoders "components"; changed in place.
        data: of the model's modalities.
        rows: (n,) of the training split, those whose every modality may be read.
    """
    labels = data.train.labels[rows.numpy()]
    labels = np.eye(data.classes)[labels] if data.classes else labels
    for m, encoder in model.encoders.items():
        count, total, square, averages = 0, 0.0, 0.0, []
        for x, valid in _frames(model, data.train, rows, m, batch_size):
            frames = x[valid]
            count, total, square = count + len(frames), total + frames.sum(0), square + frames.T @ frames
            averages.append((x.sum(1) / valid.sum(1, keepdim=True).clamp(min=1)).numpy())
        mean = total / max(count, 1)
        covariance = square / max(count, 1) - mean.outer(mean)
        std = covariance.diagonal().clamp(min=0).sqrt()
        scale = torch.where(std > 1e-6 * (1 + mean.abs()), 1 / std, 0.0)  # a constant feature tells nothing
        values, vectors = torch.linalg.eigh(covariance * scale.outer(scale))
        D, width = model.config.dim, len(mean)
        kept = vectors.flip(1)[:, : min(D, width)] / values.flip(0)[:D].mean().clamp(min=1e-12).sqrt()
        channels = (kept * scale[:, None]).T  # (min(D, width), width)
        if width > D:
            pooled = np.concatenate(averages)
            inputs = (pooled - mean.numpy()) * scale.numpy()
            label = np.atleast_2d(RidgeCV(PENALTIES).fit(inputs, labels).coef_)[: D // 2]
            label = label / np.maximum((inputs @ label.T).std(0), 1e-6)[:, None]
            channels = torch.cat([torch.from_numpy(label) * scale, channels])[:D]
        encoder.weight.zero_()
        encoder.weight[: len(channels), :, encoder.kernel_size[0] // 2] = channels.to(encoder.weight)


def _frames(
    model: IMDer, split: Split, rows: Tensor, modality: str, batch_size: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Of each batch: frames (B, T, D_m), zero where they do not count, and bool (B, T), which do."""
    for part in rows.split(batch_size):
        batch = split.batch(part.numpy())
        x = batch.features[modality].double()
        if batch.lengths is not None and model.config.lengths:
            x = x * valid_steps(batch.lengths[modality], x.shape[1])[:, 0, :, None]
        yield x, x.ne(0).any(dim=2)


@torch.no_grad()
def fit_readout(model: IMDer, train: tuple[np.ndarray, np.ndarray], valid: tuple[np.ndarray, np.ndarray]) -> None:
    """Set the readout to a ridge regression or a small network, whichever has the lower L1 on validation samples.

    The rest of the prediction starts at zero, so that the untrained model predicts what the readout does.

    Args:
        model: with a readout; changed in place.
        train, valid: time averages of the latents (n, M D), see :func:`Fusion.averages`, and labels (n,).
    """
    (x, y), readout, mean = train, model.fusion.readout, train[0].mean(0)
    ridge = RidgeCV(PENALTIES).fit(x - mean, y)
    network = MLPRegressor(
        hidden_layer_sizes=(HIDDEN, HIDDEN), alpha=1.0, early_stopping=len(x) >= 50, max_iter=300, random_state=0
    )  # its own held-out tenth needs some samples
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        network.fit(x - mean, y)
    ridge_error, error = (np.abs(fit.predict(valid[0] - mean) - valid[1]).mean() for fit in (ridge, network))
    for p in (*readout.parameters(), model.fusion.out.weight, model.fusion.out.bias):
        p.zero_()
    if ridge_error <= error:
        layers, found = [readout.linear], [(ridge.coef_[:, None], ridge.intercept_)]
    else:
        layers, found = list(readout.network)[::2], zip(network.coefs_, network.intercepts_, strict=True)
    for layer, (weight, bias) in zip(layers, found, strict=True):
        layer.weight.copy_(torch.from_numpy(np.asarray(weight).T))
        layer.bias.copy_(torch.as_tensor(bias))
    layers[0].bias -= layers[0].weight @ torch.from_numpy(mean).to(layers[0].weight)
