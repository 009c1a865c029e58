"""A start in closed form: components as encoders, ridge regression as the readout."""

from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from scipy.sparse.linalg import eigsh
from sklearn.linear_model import RidgeCV
from torch import Tensor

from imder_lib.data.schema import MultimodalData
from imder_lib.model.imder import KERNEL, IMDer
from imder_lib.nets.lengths import valid_steps

PENALTIES = np.logspace(-1, 5, 25)
WINDOWS = 30_000  # about so many tell the principal components
SHUFFLES = 4  # to tell components from chance
SHARE = 0.95  # of the squared covariance with the others; weaker directions say next to nothing


@torch.no_grad()
def closed_form_start(model: IMDer, data: MultimodalData, rows: Tensor, batch_size: int = 256) -> None:
    """Set encoders and readout so that an untrained model predicts what one ridge regression does.

    The ridge regression takes the time averages of all standardised features to the label; its penalty is chosen by
    leaving one sample out. Channel 0 of a modality's latents is the modality's part of it, the next ones are the
    components of its windows of three frames (at unit variance on average), the rest are zero: principal components, or
    the directions that covary most with the others' principal components, whichever are more. Where noise hides what a
    modality says, the others tell where to look. The k-th component counts, if those before it do, where it is larger
    than the k-th after shuffling (parallel analysis, Horn, 1965): what is below fits the noise of the training
    samples. A modality whose features alone predict the label better than its channels do, clearly, has its own ridge
    regression as one channel more: what the others say better counts where they are missing. The readout adds the
    channels 0, everything else of the prediction starts at zero.

    Args:
        model: with a readout; changed in place.
        data: of the model's modalities.
        rows: (n,) of the training split, those whose every modality may be read.
    """
    pooled, components = _statistics(model, data, rows, batch_size)
    mean, std = {m: x.mean(0) for m, x in pooled.items()}, {m: x.std(0) for m, x in pooled.items()}
    std = {m: np.where(s > 1e-6 * (1 + np.abs(mean[m])), s, np.inf) for m, s in std.items()}  # a constant tells nothing
    scaled, labels = {m: (pooled[m] - mean[m]) / std[m] for m in model.modalities}, data.train.labels[rows.numpy()]
    ridge = RidgeCV(PENALTIES).fit(np.concatenate(list(scaled.values()), axis=1), labels)
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
    averages = _averages(model, data, rows, batch_size)
    for m, encoder in model.encoders.items():
        own, errors = _left_out(scaled[m], labels)
        worse = _left_out(averages[m], labels)[1] - errors  # cautious: channel 0 has seen the labels that are left out
        if worse.mean() > worse.std() / len(rows) ** 0.5:
            place = min(1 + len(components[m]), D - 1)
            encoder.weight[place] = 0
            size = max((scaled[m] @ own).std(), 1e-6)
            encoder.weight[place, :, KERNEL // 2] = torch.from_numpy(own / std[m] / size)


def _left_out(inputs: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Weights of a ridge regression, and each sample's squared error when it is left out."""
    fit = RidgeCV(PENALTIES, store_cv_results=True).fit(inputs, labels)
    return fit.coef_, fit.cv_results_[:, list(PENALTIES).index(fit.alpha_)]


def _averages(model: IMDer, data: MultimodalData, rows: Tensor, batch_size: int) -> dict[str, np.ndarray]:
    """Time averages of what the encoders make of each modality: modality -> (n, D)."""
    out: dict[str, list[np.ndarray]] = {m: [] for m in model.encoders}
    for batch in _windows(model, data, rows, batch_size):
        for m, encoder in model.encoders.items():
            x, valid = batch[m]
            average = (x * valid[:, :, None, None]).sum(1).flatten(1) / valid.sum(1, keepdim=True).clamp(min=1)
            out[m].append((average @ encoder.weight.detach().cpu().double().flatten(1).T).numpy())  # (B, D)
    return {m: np.concatenate(x) for m, x in out.items()}


def _statistics(
    model: IMDer, data: MultimodalData, rows: Tensor, batch_size: int
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Of each modality: time averages (n, D_m) over the steps that have latents; components of its windows."""
    pooled: dict[str, list[np.ndarray]] = {m: [] for m in model.modalities}
    moments = {m: [_Moments() for _ in range(1 + SHUFFLES)] for m in model.modalities}
    stride = max(1, len(rows) * data.steps // WINDOWS)  # every so many samples give windows
    generator = torch.Generator().manual_seed(0)
    for batch in _windows(model, data, rows, batch_size):
        for m, (x, valid) in batch.items():
            centre = x[..., KERNEL // 2]
            pooled[m].append((centre.sum(1) / valid.sum(1, keepdim=True).clamp(min=1)).numpy())
            x, valid = x[::stride], valid[::stride]
            moments[m][0].add(x[valid].flatten(1).numpy())
            for mixed in moments[m][1:]:  # each feature from another sample
                order = torch.rand(len(x), x.shape[2], generator=generator).argsort(dim=0)
                mixed.add(x.gather(0, order[:, None, :, None].expand_as(x))[valid].flatten(1).numpy())
    keep = model.config.dim - 1
    principal = {m: _principal(*x, keep=keep) for m, x in moments.items()}
    common = {m: (_Moments(), moments[m][0]) for m in model.modalities}
    for batch in _windows(model, data, rows, batch_size):
        parts = {m: (x.flatten(2), valid) for m, (x, valid) in batch.items()}
        for m, (x, valid) in parts.items():
            others = torch.cat([y @ torch.from_numpy(principal[o]).T for o, (y, _) in parts.items() if o != m], dim=2)
            valid = torch.stack([there for _, there in parts.values()]).all(dim=0)
            rolled = torch.cat([others.roll(k, 0) for k in range(1 + SHUFFLES)], dim=2)  # then those of other samples
            common[m][0].add(x[valid].numpy(), rolled[valid].numpy())
    pooled = {m: np.concatenate(x) for m, x in pooled.items()}
    return pooled, {m: max(principal[m], _common(*x, keep=keep), key=len) for m, x in common.items()}


def _windows(
    model: IMDer, data: MultimodalData, rows: Tensor, batch_size: int
) -> Iterator[dict[str, tuple[Tensor, Tensor]]]:
    """Of each batch and modality: what each latent step sees (B, T', D_m, KERNEL), and bool (B, T'), is there any."""
    for part in rows.split(batch_size):
        batch, out = data.train.batch(part.numpy()), {}
        for m in model.modalities:
            x = batch.features[m].double()  # (B, T, D_m)
            x = F.pad(x, (0, 0, 1, 1)) if x.shape[1] < KERNEL else x
            x = x.unfold(1, KERNEL, 1)
            if batch.lengths is not None and model.config.lengths:
                lost = data.steps - x.shape[1]
                x = x * valid_steps((batch.lengths[m] - lost).clamp(min=1), x.shape[1])[:, 0, :, None, None]
            out[m] = x, x[..., KERNEL // 2].ne(0).any(dim=2)
        yield out


class _Moments:
    """First and second moments of windows x, with each other or with y, that come in parts."""

    def __init__(self) -> None:
        self.count, self.x, self.y, self.products = 0, 0.0, 0.0, 0.0
        self.squares = (0.0, 0.0)

    def add(self, x: np.ndarray, y: np.ndarray | None = None) -> None:
        y = x if y is None else y
        self.count += len(x)
        self.x, self.y, self.products = self.x + x.sum(0), self.y + y.sum(0), self.products + x.T @ y
        self.squares = self.squares[0] + (x * x).sum(0), self.squares[1] + (y * y).sum(0)

    def correlation(self) -> tuple[np.ndarray, np.ndarray]:
        """Correlation matrix, and standard deviations of x; infinite where nothing varies."""
        n, deviations = max(self.count, 1), []
        for total, squares in zip((self.x, self.y), self.squares, strict=True):
            mean = total / n
            std = np.sqrt(np.maximum(squares / n - mean**2, 0))
            deviations.append(np.where(std > 1e-6 * (1 + np.abs(mean)), std, np.inf))
        covariance = self.products / n - np.outer(self.x, self.y) / n**2
        return covariance / np.outer(*deviations), deviations[0]


def _principal(own: _Moments, *mixed: _Moments, keep: int) -> np.ndarray:
    """At most ``keep`` principal components of standardised windows, largest first, as rows over raw windows.

    ``mixed``: of windows whose features come from different samples each; their k-th component is the k-th's floor.
    """
    correlation, _ = own.correlation()
    floor = np.max([_largest(m.correlation()[0], keep) for m in mixed], axis=0)
    values, vectors = np.linalg.eigh(correlation)
    return _rows(vectors[:, ::-1][:, :keep], values[::-1][:keep] > np.maximum(floor, 1e-6), own)


def _largest(matrix: np.ndarray, keep: int) -> np.ndarray:
    """At most ``keep`` eigenvalues of a symmetric matrix, largest first."""
    if 10 * keep > len(matrix):
        return np.linalg.eigvalsh(matrix)[::-1][:keep]
    shifted = matrix + np.eye(len(matrix))  # Lanczos, a tenth of the time, cannot start where the matrix is zero
    return np.sort(eigsh(shifted, keep, v0=np.ones(len(matrix)), return_eigenvectors=False))[::-1] - 1


def _common(cross: _Moments, own: _Moments, keep: int) -> np.ndarray:
    """At most ``keep`` directions of windows that hold SHARE of what covaries with the others' components.

    Singular vectors of the cross-correlation (partial least squares), as rows over raw windows.

    ``cross``: of windows with those of the same sample, and then with those of other samples, the floor.
    """
    parts = np.split(cross.correlation()[0], 1 + SHUFFLES, axis=1)
    vectors, values, _ = np.linalg.svd(parts[0], full_matrices=False)
    floor = np.max([np.linalg.svd(p, compute_uv=False) for p in parts[1:]], axis=0)
    real = np.where((values > np.maximum(floor, 1e-6)).cumprod(), values**2, 0)
    before = real.cumsum() - real
    return _rows(vectors[:, :keep], ((real > 0) & (before < SHARE * real.sum()))[:keep], own)


def _rows(vectors: np.ndarray, above: np.ndarray, own: _Moments) -> np.ndarray:
    """Those vectors over standardised windows before the first that is not above, as rows over raw windows.

    Their values have variance 1 on average.
    """
    correlation, std = own.correlation()
    kept = vectors[:, : int(above.cumprod().sum())]
    variance = ((correlation @ kept) * kept).sum() / max(kept.shape[1], 1)
    return kept.T / std / max(np.sqrt(variance), 1e-6)
