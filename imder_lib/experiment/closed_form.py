"""Closed-form initialisation of the fusion stage: encoders from principal components, and the readout."""

import warnings

import numpy as np
import torch
from torch import Tensor

from imder_lib.data.schema import MultimodalData, Split
from imder_lib.model.imder import IMDer
from imder_lib.nets.fusion import HIDDEN
from imder_lib.nets.lengths import valid_steps

PENALTIES = np.logspace(-1, 5, 25)
Ridge = tuple[dict[str, np.ndarray], np.ndarray]  # modality -> weights (k, D_m) of its time averages; intercept (k,)


@torch.no_grad()
def fit_encoders(model: IMDer, data: MultimodalData, rows: Tensor) -> Ridge:
    """Set the encoders to principal components of standardised frames, ordered by variance.

    The channels of a modality have variance 1 on average. For a modality no wider than D, the encoder loses no
    information. For a wider one, the first channels (one, or one per class) are its part of the ridge regression of the
    label on all time averages, because the label may depend on directions of small variance. Components fill the rest.

    ``rows`` (n,) are training samples whose modalities are all observed. Returns the ridge regression.
    """
    from sklearn.linear_model import RidgeCV  # here and not above: slow to import, and few commands need it

    labels, D = data.train.labels[rows.numpy()], model.config.dim
    labels = np.eye(data.classes)[labels] if data.classes else labels[:, None]
    pooled, scales, components = {}, {}, {}
    for m in model.modalities:
        mean, covariance, pooled[m] = _statistics(model, data.train, rows, m)
        std = covariance.diagonal().clamp(min=0).sqrt()
        scale = torch.where(std > 1e-6 * (1 + mean.abs()), 1 / std, 0.0)  # constant features are ignored
        values, vectors = torch.linalg.eigh(covariance * scale.outer(scale))
        vectors = vectors.flip(1)[:, :D] / values.flip(0)[:D].mean().clamp(min=1e-12).sqrt()
        components[m] = (vectors * scale[:, None]).T  # (min(D, D_m), D_m)
        scales[m] = scale.numpy()
    inputs = np.concatenate([pooled[m] * scales[m] for m in pooled], axis=1)
    fit = RidgeCV(PENALTIES).fit(inputs, labels)
    splits = np.cumsum([len(s) for s in scales.values()])[:-1]
    parts = np.split(np.reshape(fit.coef_, (-1, inputs.shape[1])), splits, axis=1)
    ridge = {m: part * scales[m] for m, part in zip(pooled, parts, strict=True)}
    for m, encoder in model.encoders.items():
        channels = components[m]
        if channels.shape[1] > D:
            label = ridge[m][: D // 2]
            label = label / np.maximum((pooled[m] @ label.T).std(0), 1e-6)[:, None]
            channels = torch.cat([torch.from_numpy(label), channels])[:D]
        encoder.weight.zero_()
        encoder.weight[: len(channels), :, encoder.kernel_size[0] // 2] = channels.to(encoder.weight)
    return ridge, np.atleast_1d(fit.intercept_)


def _statistics(model: IMDer, split: Split, rows: Tensor, modality: str) -> tuple[Tensor, Tensor, np.ndarray]:
    """Mean (D_m,) and covariance (D_m, D_m) of all frames but padding, and the time averages of samples (n, D_m)."""
    count, total, square, averages = 0, 0.0, 0.0, []
    for part in rows.split(256):
        batch = split.batch(part.numpy())
        x = batch.features[modality].double()  # (B, T, D_m)
        if batch.lengths is not None and model.config.mask_padding:
            x = x * valid_steps(batch.lengths[modality], x.shape[1])[:, 0, :, None]
        valid = x.ne(0).any(dim=2)
        frames = x[valid]
        count, total, square = count + len(frames), total + frames.sum(0), square + frames.T @ frames
        averages.append((x.sum(1) / valid.sum(1, keepdim=True).clamp(min=1)).numpy())
    mean = total / max(count, 1)
    return mean, square / max(count, 1) - mean.outer(mean), np.concatenate(averages)


@torch.no_grad()
def fit_readout(
    model: IMDer, ridge: Ridge, train: tuple[np.ndarray, np.ndarray], valid: tuple[np.ndarray, np.ndarray]
) -> None:
    """Set the readout to the ridge regression, or to a small network if its validation loss is clearly lower.

    "Clearly" means that L1 is lower by more than two standard errors of the paired difference. The output layer of the
    fusion is initialised to zero, so the untrained model predicts the output of the readout.

    Args:
        ridge: of :func:`fit_encoders`, which has set the encoders.
        train, valid: time averages of the latents (n, M D), see :func:`Fusion.averages`, and labels (n,).
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.neural_network import MLPRegressor

    (x, y), readout, mean = train, model.fusion.readout, train[0].mean(0)
    network = MLPRegressor(
        hidden_layer_sizes=(HIDDEN, HIDDEN), alpha=1.0, early_stopping=len(x) >= 50, max_iter=300, random_state=0
    )  # early stopping holds out a tenth of the samples
    with warnings.catch_warnings(action="ignore", category=ConvergenceWarning):
        network.fit(x - mean, y)
    weights = []  # of the regression on latents; wide modalities have a channel for it
    for m, part in ridge[0].items():
        if m in model.encoders:
            encoder = model.encoders[m].weight[:, :, 0].cpu().double().numpy()  # (D, D_m)
            part = np.linalg.lstsq(encoder.T, part.T, rcond=None)[0].T
        weights.append(part)
    weight = np.concatenate(weights, axis=1)  # (1, M D)
    gain = np.abs(valid[0] @ weight[0] + ridge[1] - valid[1]) - np.abs(network.predict(valid[0] - mean) - valid[1])
    for p in (*readout.parameters(), model.fusion.out.weight, model.fusion.out.bias):
        p.zero_()
    if len(gain) < 2 or gain.mean() <= 2 * gain.std(ddof=1) / len(gain) ** 0.5:
        readout.linear.weight.copy_(torch.from_numpy(weight))
        readout.linear.bias.copy_(torch.from_numpy(ridge[1]))
        return
    layers = list(readout.network)[::2]
    for layer, w, b in zip(layers, network.coefs_, network.intercepts_, strict=True):
        layer.weight.copy_(torch.from_numpy(w.T))
        layer.bias.copy_(torch.from_numpy(b))
    layers[0].bias -= layers[0].weight @ torch.from_numpy(mean).to(layers[0].weight)
