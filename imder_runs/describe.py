"""What a data set holds, and what is odd in it: the summary of imder check."""

import hashlib

import numpy as np

from imder_lib.data.checks import check_numbers, check_tokens
from imder_lib.data.schema import MultimodalData
from imder_runs.fake import is_fake

UNTRAINABLE = "so the kit cannot train on this file"
UNUSUAL = 1e6  # times the median over training rows of the largest number in a row


def sentiment_scale(data: MultimodalData) -> bool:
    """Whether labels are sentiments in [-3, 3] with both signs, so that ACC2, F1, ACC5 and ACC7 are meaningful.

    They must reach beyond [-1, 1], the scale of other data sets such as SIMS, on both sides.
    """
    y = np.concatenate([s.labels for s in data.splits.values()])
    minority = min((y > 0).mean(), (y < 0).mean())
    return bool(np.abs(y).max() <= 3 and min(y.max(), -y.min()) > 1.01 and minority >= 0.1)


def describe(data: MultimodalData) -> str:
    """A summary in a few lines: shapes, labels, origin; of a file also what is odd in its contents.

    Of a converted folder, a number that is not finite or too large raises a UserError with split, key and row.
    """
    lines = [f"data set {data.name}, sha256 {data.sha256[:16]}..., common T {data.steps}"]
    for name, s in data.splits.items():
        shapes = ", ".join(f"{m} {'x'.join(map(str, x.shape))}" for m, x in s.features.items())
        y = s.labels
        label = f"label {y.min():.2f}..{y.max():.2f}, mean {y.mean():.2f}"
        label = f"classes {y.min()} to {y.max()}" if data.classes else label
        counts = zip(s.features, (~s.given(s.features)).sum(dim=0).tolist(), strict=True)
        lacking = ", ".join(f"{n} lack {m}" for m, n in counts if n)
        lines.append(f"{name:5} N {len(s):5}: {shapes}; {label}" + (lacking and f"; {lacking}"))
    if data.process is not None:
        styles = ", ".join(f"{s} {p:g}" for s, p in zip(data.process.styles, data.process.prior, strict=True))
        styles = f"; hidden styles: {styles}" if len(data.process.styles) > 1 else ""
        lines.append(f"synthetic: drawn from a known process, not measured on people{styles}")
    if is_fake(data):
        lines.append("fake: random numbers in the shape of the original, for rehearsals only")
    if not data.classes and not sentiment_scale(data):
        lines.append("labels are no sentiments in [-3, 3]: read MAE and correlation, not ACC2, F1, ACC5, ACC7")
    return "\n  ".join([*lines, *data.notes, *(_oddities(data) if data.path else ())])


def _oddities(data: MultimodalData) -> list[str]:
    """One line for each oddity that training can stand, a UserError for one that it cannot; reads all features."""
    lines, usual = [], {}
    for name in ("train", "valid"):
        available = data.splits[name].available
        if available is not None and not available.all(axis=1).any():
            lines.append(f"split {name!r}: no sample has all modalities, {UNTRAINABLE}")
    seen: dict[bytes, str] = {}  # hash of a row's features -> the first split that has it
    for name, split in data.splits.items():
        if split.text_bert is not None:
            check_tokens(split.text_bert, f"{data.path}: split {name!r}")
        for m, x, has in zip(split.features, split.features.values(), split.given(split.features).T, strict=True):
            where = f"split {name!r}, key {m!r}"
            check_numbers(x, f"{data.path}: {where}")
            reach = np.maximum(x.max(axis=(1, 2)), -x.min(axis=(1, 2)).astype(np.float64))
            if zero := int((has.numpy() & (reach == 0)).sum()):
                hint = f"if they have no {m}, say so in key 'available' (docs/your_data.md)"
                lines.append(f"{where}: {zero} of {len(x)} rows are all zero: {hint}")
            if name == "train":
                usual[m] = np.median(reach[reach > 0]) if reach.any() else np.inf
                own = x if has.all() else x[has.numpy()]  # the zeros of absent rows are no data
                if len(own) and (constant := int((own.min(axis=(0, 1)) == own.max(axis=(0, 1))).sum())):
                    lines.append(f"{where}: {constant} of {x.shape[2]} columns are constant")
            if len(rows := np.flatnonzero(reach > UNUSUAL * usual[m])):
                much = f"reaches {reach[rows[0]]:.3g}, in a usual row {usual[m]:.3g}"
                lines.append(f"{where}, row {rows[0]}: {much}; {len(rows)} such rows")
        rows = zip(*split.features.values(), strict=True)
        row_bytes = (b"".join(np.asarray(x, np.float32).tobytes() for x in row) for row in rows)
        found = [hashlib.blake2b(row).digest() for row in row_bytes]
        if same := [i for i, h in enumerate(found) if h in seen]:
            first = f"the first is row {same[0]}, id {split.ids[same[0]]!r}, as in {seen[found[same[0]]]!r}"
            lines.append(f"split {name!r}: {len(same)} rows have the features of a row in another split; {first}")
        seen = dict.fromkeys(found, name) | seen
    return lines
