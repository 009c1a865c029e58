"""Data in memory: data sets, their splits (NumPy arrays) and batches (tensors)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from imder_lib.data.checks import contents
from imder_lib.data.process import AffectProcess
from imder_lib.errors import UserError

SPLITS = ("train", "valid", "test")
FAKE = "fake_"  # prefix of the ids in files written by `imder fake`


@dataclass
class Batch:
    """Tensors of B samples.

    Attributes:
        features: modality -> float32 (B, T, D_m), with the same T in all modalities.
        labels: (B, 1), in units of the label; int64 for classes.
        ids: sample ids.
        lengths: modality -> (B,), the number of valid steps; None: all T.
    """

    features: dict[str, Tensor]
    labels: Tensor
    ids: list[str]
    lengths: dict[str, Tensor] | None = None

    def to(self, device: torch.device | str) -> "Batch":
        features = {m: x.to(device) for m, x in self.features.items()}
        lengths = None if self.lengths is None else {m: n.to(device) for m, n in self.lengths.items()}
        return Batch(features, self.labels.to(device), self.ids, lengths)


@dataclass
class Split:
    """One split. Arrays may be memory-mapped; only :meth:`batch` copies them.

    Attributes:
        features: modality -> (N, T_m, D_m), as stored.
        labels: float32 (N,), or int64 (N,) classes from 0.
        ids: sample ids, unique in the whole data set.
        steps: the common T of batches, see :func:`align`.
        scale: modality -> (mean (D_m,), std (D_m,)) that standardise batches; None: as stored.
        texts: raw texts, or empty.
        lengths: modality -> (N,), the number of valid steps out of T_m; empty if unknown.
        text_bert: (N, 3, T), BERT's ids, mask and segments, if the file has them.
        data: the data set that the split belongs to.
    """

    features: dict[str, np.ndarray]
    labels: np.ndarray
    ids: list[str]
    steps: int
    scale: dict[str, tuple[np.ndarray, np.ndarray]] | None = None
    texts: list[str] = field(default_factory=list)
    lengths: dict[str, np.ndarray] = field(default_factory=dict)
    text_bert: np.ndarray | None = field(default=None, repr=False)
    data: "MultimodalData | None" = field(default=None, repr=False)

    def __len__(self) -> int:
        return len(self.ids)

    def batch(self, rows: Sequence[int] | np.ndarray | None = None) -> Batch:
        """The given rows (all if None) as tensors with one common T."""
        rows = np.arange(len(self)) if rows is None else np.asarray(rows)
        features = {m: align(torch.from_numpy(self._frames(m, rows)), self.steps) for m in self.features}
        lengths = {m: self._aligned_lengths(m, rows) for m in self.features} if self.lengths else None
        labels = self.labels[rows] if self.labels.dtype == np.int64 else self.labels[rows].astype(np.float32)
        return Batch(features, torch.from_numpy(labels)[:, None], [self.ids[i] for i in rows], lengths)

    def _frames(self, m: str, rows: np.ndarray) -> np.ndarray:
        """(B, T_m, D_m): a copy, never a view of the file, standardised if there is a scale."""
        x = np.array(self.features[m][rows], dtype=np.float32)
        if self.scale is None or m not in self.scale:
            return x
        mean, std = self.scale[m]
        padding = ~x.any(axis=-1, keepdims=True)  # all-zero frames are padding and stay zero
        return np.where(padding, 0.0, (x - mean) / std).astype(np.float32)

    def _aligned_lengths(self, m: str, rows: np.ndarray) -> Tensor:
        """int64 (B,): valid steps after :func:`align`."""
        T = self.features[m].shape[1]
        n = self.lengths[m][rows] if m in self.lengths else np.full(len(rows), T)
        if self.steps < T or T == 1:
            n = -(-n * self.steps // T)  # rounded up: a window is valid if any of its steps is valid
        return torch.from_numpy(np.array(n, dtype=np.int64))

    def first(self, n: int) -> "Split":
        """The first n samples, without a copy."""
        return replace(
            self,
            features={m: x[:n] for m, x in self.features.items()},
            lengths={m: x[:n] for m, x in self.lengths.items()},
            text_bert=None if self.text_bert is None else self.text_bert[:n],
            labels=self.labels[:n],
            ids=self.ids[:n],
            texts=self.texts[:n],
        )

    def tokens(self, rows: Sequence[int] | np.ndarray) -> Tensor:
        """BERT's ids, mask and segments of the given rows: int64 (B, 3, T).

        Raises:
            UserError: the file has no text_bert.
        """
        if self.text_bert is None:
            raise UserError("the data have no text_bert: use text 'features', or a file in the MMSA schema that has it")
        return torch.from_numpy(np.array(self.text_bert[np.asarray(rows)], dtype=np.int64))


@dataclass
class MultimodalData:
    """A data set: splits train, valid and test.

    Attributes:
        name: "synthetic", "gaussian", "digits", "two_moons", "mosi", "mosei" or the stem of the path.
        splits: "train", "valid", "test" -> Split.
        sha256: of the file, or of the parameters that generate the data.
        process: the process that generates the data; None unless they are synthetic.
        path: the file or converted folder; None for generated data and digits.
        notes: what was understood in another way than it is written, such as a split "dev" taken for valid.
    """

    name: str
    splits: dict[str, Split]
    sha256: str
    process: AffectProcess | None = None
    path: Path | None = None
    notes: Sequence[str] = ()

    def __post_init__(self) -> None:
        for split in self.splits.values():
            split.data = self

    @property
    def fake(self) -> bool:
        """Whether the data are random numbers written by `imder fake`."""
        return self.train.ids[0].startswith(FAKE)

    @property
    def train(self) -> Split:
        return self.splits["train"]

    @property
    def valid(self) -> Split:
        return self.splits["valid"]

    @property
    def test(self) -> Split:
        return self.splits["test"]

    @property
    def modalities(self) -> tuple[str, ...]:
        return tuple(self.train.features)

    @property
    def widths(self) -> dict[str, int]:
        return {m: x.shape[-1] for m, x in self.train.features.items()}

    @property
    def steps(self) -> int:
        return self.train.steps

    @property
    def classes(self) -> int:
        """Number of classes; 0 if labels are real numbers."""
        if self.train.labels.dtype != np.int64:
            return 0
        return 1 + max(int(s.labels.max()) for s in self.splits.values())

    @property
    def sentiment_scale(self) -> bool:
        """Whether labels are sentiments in [-3, 3] with both signs, so that ACC2, F1, ACC5 and ACC7 are meaningful.

        They must reach beyond [-1, 1], the scale of other data sets such as SIMS, on both sides.
        """
        y = np.concatenate([s.labels for s in self.splits.values()])
        minority = min((y > 0).mean(), (y < 0).mean())
        return bool(np.abs(y).max() <= 3 and min(y.max(), -y.min()) > 1.01 and minority >= 0.1)

    def describe(self) -> str:
        """A summary in a few lines: shapes, labels, origin; of a file also what is odd in its contents.

        Raises:
            UserError: a number that training cannot stand, in a converted folder; it names split, key and row.
        """
        lines = [f"data set {self.name}, sha256 {self.sha256[:16]}..., common T {self.steps}"]
        for name, s in self.splits.items():
            shapes = ", ".join(f"{m} {'x'.join(map(str, x.shape))}" for m, x in s.features.items())
            y = s.labels
            label = f"label {y.min():.2f}..{y.max():.2f}, mean {y.mean():.2f}"
            label = f"classes {y.min()} to {y.max()}" if self.classes else label
            lines.append(f"  {name:5} N {len(s):5}: {shapes}; {label}")
        if self.process is not None:
            styles = ", ".join(f"{s} {p:g}" for s, p in zip(self.process.styles, self.process.prior, strict=True))
            styles = f"; hidden styles: {styles}" if len(self.process.styles) > 1 else ""
            lines.append(f"  synthetic: drawn from a known process, not measured on people{styles}")
        if self.fake:
            lines.append("  fake: random numbers in the shape of the original, for rehearsals only")
        if not self.classes and not self.sentiment_scale:
            lines.append("  labels are no sentiments in [-3, 3]: read MAE and correlation, not ACC2, F1, ACC5, ACC7")
        odd = [] if self.path is None else contents(self.splits, self.path)
        return "\n".join(lines + [f"  {note}" for note in (*self.notes, *odd)])


def align(x: Tensor, steps: int) -> Tensor:
    """(B, T_m, D) to (B, steps, D).

    Longer sequences are averaged over ``steps`` windows, a single step is repeated, and shorter sequences are padded
    with zeros at the end.
    """
    T = x.shape[1]
    if steps == T:
        return x
    if steps < T:
        return F.adaptive_avg_pool1d(x.transpose(1, 2), steps).transpose(1, 2).contiguous()
    return x.repeat(1, steps, 1) if T == 1 else F.pad(x, (0, 0, 0, steps - T))


def checked_sizes(sizes: Mapping[str, int] | None, defaults: Mapping[str, int]) -> dict[str, int]:
    """The defaults, split -> N, updated by ``sizes``; a UserError for an unknown split or one without samples."""
    out = {**defaults, **(sizes or {})}
    if set(out) != set(SPLITS) or min(out.values()) < 1:
        raise UserError(f"sizes must give train, valid and test at least one sample each, got {out}")
    return out
