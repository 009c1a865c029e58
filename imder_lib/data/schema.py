"""Data in memory: data sets, their splits (NumPy arrays) and batches (tensors)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from imder_lib.data.process import AffectProcess
from imder_lib.errors import UserError

SPLITS = ("train", "valid", "test")
Counts = Mapping[str, int] | None  # split -> N, or modality -> D_m; None: the defaults


@dataclass
class Batch:
    """Tensors of B samples."""

    features: dict[str, Tensor]  # modality -> float32 (B, T, D_m), with the same T in all modalities
    labels: Tensor  # (B, 1), in units of the label; int64 for classes
    ids: list[str]
    lengths: dict[str, Tensor] | None = None  # modality -> (B,), the number of valid steps; None: all T

    def to(self, device: torch.device | str) -> "Batch":
        features = {m: x.to(device) for m, x in self.features.items()}
        lengths = None if self.lengths is None else {m: n.to(device) for m, n in self.lengths.items()}
        return Batch(features, self.labels.to(device), self.ids, lengths)


@dataclass
class Split:
    """One split of N samples. Arrays may be memory-mapped; only :meth:`batch` copies them."""

    features: dict[str, np.ndarray]  # modality -> (N, T_m, D_m), as stored
    labels: np.ndarray  # float32 (N,), or int64 (N,) classes from 0
    ids: list[str]  # unique in the whole data set
    steps: int  # the common T of batches, see align()
    scale: dict[str, tuple[np.ndarray, np.ndarray]] | None = None  # modality -> mean, std (D_m,); None: as stored
    texts: list[str] = field(default_factory=list)  # raw texts, or empty
    lengths: dict[str, np.ndarray] = field(default_factory=dict)  # modality -> (N,), valid steps of T_m, if known
    text_bert: np.ndarray | None = field(default=None, repr=False)  # (N, 3, T): BERT's ids, mask and segments
    available: np.ndarray | None = None  # bool (N, M), what each sample has, in the order of features; None: everything
    data: "MultimodalData | None" = field(default=None, repr=False)  # that the split belongs to

    def __len__(self) -> int:
        return len(self.ids)

    def given(self, modalities: Sequence[str]) -> Tensor:
        """What each sample has: bool (N, M), columns in the order of ``modalities``."""
        if self.available is None:
            return torch.ones(len(self), len(modalities), dtype=torch.bool)
        return torch.from_numpy(self.available[:, [list(self.features).index(m) for m in modalities]])

    def batch(self, rows: Sequence[int] | np.ndarray | None = None) -> Batch:
        """The given rows (all if None) with one common T, standardised if there is a scale; 0 for what samples lack."""
        rows = np.arange(len(self)) if rows is None else np.asarray(rows)
        features, lengths = {}, {}
        for i, (m, stored) in enumerate(self.features.items()):
            x = np.array(stored[rows], dtype=np.float32)  # a copy, never a view of the file
            if self.available is not None:
                x[~self.available[rows, i]] = 0
            if self.scale and m in self.scale:
                mean, std = self.scale[m]  # all-zero frames are padding and stay zero
                x = np.where(x.any(axis=-1, keepdims=True), (x - mean) / std, 0).astype(np.float32)
            features[m] = align(torch.from_numpy(x), self.steps)
            T = stored.shape[1]
            n = self.lengths[m][rows] if m in self.lengths else np.full(len(rows), T)
            if self.steps < T or T == 1:
                n = -(-n * self.steps // T)  # rounded up: a window is valid if any of its steps is valid
            lengths[m] = torch.from_numpy(np.array(n, dtype=np.int64))
        labels = self.labels[rows] if self.labels.dtype == np.int64 else self.labels[rows].astype(np.float32)
        ids = [self.ids[i] for i in rows]
        return Batch(features, torch.from_numpy(labels)[:, None], ids, lengths if self.lengths else None)

    def first(self, n: int) -> "Split":
        """The first n samples, without a copy."""
        return self._part(slice(n))

    def complete(self) -> "Split":
        """The samples that have every modality, without a copy if all do; a UserError if none does."""
        rows = np.arange(len(self)) if self.available is None else np.flatnonzero(self.available.all(axis=1))
        if not len(rows):
            raise UserError(f"no sample has all of {list(self.features)}: the truth about what they lack is unknown")
        return self if len(rows) == len(self) else self._part(rows)

    def _part(self, rows: slice | np.ndarray) -> "Split":
        features, lengths = ({m: x[rows] for m, x in part.items()} for part in (self.features, self.lengths))
        arrays = {k: getattr(self, k) for k in ("labels", "text_bert", "available")}
        arrays = {k: x[rows] for k, x in arrays.items() if x is not None}
        ids, texts = (np.array(names, dtype=object)[rows].tolist() if names else [] for names in (self.ids, self.texts))
        return replace(self, features=features, lengths=lengths, ids=ids, texts=texts, **arrays)

    def tokens(self, rows: Sequence[int] | np.ndarray) -> Tensor:
        """BERT's ids, mask and segments of the given rows: int64 (B, 3, T); a UserError if the file has none."""
        if self.text_bert is None:
            raise UserError("the data have no text_bert: use text 'features', or a file in the MMSA schema that has it")
        return torch.from_numpy(np.array(self.text_bert[np.asarray(rows)], dtype=np.int64))


@dataclass
class MultimodalData:
    """A data set with splits train, valid and test."""

    name: str  # "synthetic", "gaussian", "digits", "two_moons", "mosi", "mosei" or the stem of the path
    splits: dict[str, Split]
    sha256: str  # of the file, or of the parameters that generate the data
    process: AffectProcess | None = None  # that generates the data, if they are synthetic
    path: Path | None = None  # the file or converted folder, if the data come from one
    notes: Sequence[str] = ()  # what was understood in another way than it is written
    train: Split = field(init=False, repr=False)
    valid: Split = field(init=False, repr=False)
    test: Split = field(init=False, repr=False)

    def __post_init__(self) -> None:
        # Copies of the splits (not of their arrays), so that they may belong to another data set too.
        self.splits = {name: replace(split, data=self) for name, split in self.splits.items()}
        self.train, self.valid, self.test = (self.splits[name] for name in SPLITS)

    def complete(self) -> "MultimodalData":
        """The data of samples that have every modality, see :meth:`Split.complete`."""
        return replace(self, splits={name: s.complete() for name, s in self.splits.items()})

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
        numbers = self.train.labels.dtype != np.int64
        return 0 if numbers else 1 + max(int(s.labels.max()) for s in self.splits.values())


def align(x: Tensor, steps: int) -> Tensor:
    """(B, T_m, D) to (B, steps, D): averages over windows, repeats a single step, or pads with zeros at the end."""
    T = x.shape[1]
    if steps == T:
        return x
    if steps < T:
        return F.adaptive_avg_pool1d(x.transpose(1, 2), steps).transpose(1, 2).contiguous()
    return x.repeat(1, steps, 1) if T == 1 else F.pad(x, (0, 0, 0, steps - T))


def checked_sizes(sizes: Counts, defaults: Mapping[str, int]) -> dict[str, int]:
    """The defaults, split -> N, updated by ``sizes``; a UserError for an unknown split or one without samples."""
    out = {**defaults, **(sizes or {})}
    if set(out) != set(SPLITS) or min(out.values()) < 1:
        raise UserError(f"sizes must give train, valid and test at least one sample each, got {out}")
    return out
