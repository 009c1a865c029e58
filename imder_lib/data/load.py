"""Single entry point for loading data: generated data, the named data sets, and any file in the MMSA schema."""

import hashlib
import json
import warnings
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from imder_lib.config import WIDTHS
from imder_lib.data.digits import digits
from imder_lib.data.mmsa import LABELS, check_content
from imder_lib.data.pickles import read_pickle
from imder_lib.data.schema import SPLITS, Counts, MultimodalData, checked_sizes
from imder_lib.data.synthetic import RECIPES, synthetic
from imder_lib.data.two_moons import two_moons
from imder_lib.errors import UserError, unknown

MANIFEST = "manifest.json"
MAKERS = {name: (partial(synthetic, name=name), {"sizes", "widths", "steps", "seed"}) for name in RECIPES}
MAKERS |= {"digits": (digits, {"seed"}), "two_moons": (two_moons, {"sizes", "seed"})}  # and what each can be asked for
NAMES = (*MAKERS, *WIDTHS)
# SHA-256 of aligned_50.pkl as published by the makers of MMSA.
PUBLISHED_SHA256 = {
    "mosi": "d3994fd25681f9c7ad6e9c6596a6fe9b4beb85ff7d478ba978b124139002e5f9",
    "mosei": "45eccfb748a87c80ecab9bfac29582e7b1466bf6605ff29d3b338a75120bf791",
}
PIECE = 1 << 23  # bytes of an array that are converted to float64 at a time
DATA_ROOT = Path(__file__).resolve().parents[2] / "data"  # of the checkout


def load_data(
    source: str | Path,
    *,
    root: str | Path = DATA_ROOT,
    standardise: bool = False,
    sizes: Counts = None,
    widths: Counts = None,
    steps: int | None = None,
    seed: int | None = None,
) -> MultimodalData:
    """Load and check a data set.

    Args:
        source: "synthetic" (a process with hidden styles) or "gaussian" (one without); "digits" (scikit-learn's, with
            classes); "two_moons"; "mosi" or "mosei" (a converted folder ROOT/NAME, or a file ROOT/NAME/aligned_50.pkl
            or ROOT/NAME.pkl); or the path of a pickle in the MMSA schema or of a converted folder. Data loaded from a
            path are never labelled MOSI or MOSEI, so published results are not shown beside them. A named data set
            whose file differs from the published one gives a warning.
        root: folder of the named data sets.
        standardise: standardise each feature with the statistics of the training split; all-zero frames stay zero.
        sizes: split -> N, of a process or of two moons; missing entries take the default. Of other data: at most the
            first N rows are used.
        widths, steps: modality -> D_m and T, of a process; the process's own if None.
        seed: of a process, of two moons, or of the digits' splits; 0 if None.

    Raises:
        UserError: the data do not exist, fail a check (it names split, key and row), or take no such parameter.
    """
    name = str(source)
    make, takes = MAKERS.get(name, (None, set()))
    choices = {"sizes": sizes, "widths": widths, "steps": steps, "seed": seed}
    given = {k: v for k, v in choices.items() if v is not None}
    if wrong := sorted(given.keys() - takes - {"sizes"}):
        raise UserError(f"{name}: {', '.join(wrong)} cannot be chosen for these data: leave them out")
    data = make(**{k: given[k] for k in given.keys() & takes}) if make else _load_file(source, Path(root))
    if standardise:
        scale = _training_scale(data.train.features)
        for split in data.splits.values():
            split.scale = scale
    if not sizes or "sizes" in takes:
        return data
    sizes = checked_sizes(sizes, {k: len(s) for k, s in data.splits.items()})
    return replace(data, splits={k: s.first(sizes[k]) for k, s in data.splits.items()})


def _training_scale(features: Mapping[str, np.ndarray]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Mean and standard deviation of each feature over all frames that are not padding: modality -> two (D_m,)."""
    scale = {}
    for m, array in features.items():
        count, total, square = 0, np.zeros(array.shape[-1]), np.zeros(array.shape[-1])
        rows = max(1, PIECE // max(1, array[:1].nbytes))
        for i in range(0, len(array), rows):
            x = np.asarray(array[i : i + rows], dtype=np.float64).reshape(-1, array.shape[-1])
            x = x[x.any(axis=1)]
            count, total, square = count + len(x), total + x.sum(0), square + (x**2).sum(0)
        mean = total / max(count, 1)
        std = np.sqrt(np.maximum(square / max(count, 1) - mean**2, 0))
        # A constant feature is centred but not scaled; a deviation below 1e-6 of the mean is rounding error.
        std = np.where(std <= 1e-6 * np.maximum(np.abs(mean), 1e-12), 1.0, std)
        scale[m] = (mean.astype(np.float32), std.astype(np.float32))
    return scale


def _load_file(source: str | Path, root: Path) -> MultimodalData:
    name, path = str(source), Path(source)
    if name in WIDTHS:
        places = [root / name, root / name / "aligned_50.pkl", root / f"{name}.pkl"]
        path = next((p for p in places if p.is_file() or (p / MANIFEST).is_file()), None)
        if path is None:
            raise UserError(f"{name} not found: put its aligned_50.pkl at {places[1]} (see docs/mosi_mosei.md)")
    elif not path.exists():
        raise unknown("no data at", name, NAMES, end=f" or the path of a file or folder, relative to {Path.cwd()}")
    data = open_converted(path) if path.is_dir() else read_file(path)
    if name not in WIDTHS:
        data.name = f"{path.stem} (file)" if path.stem in NAMES else path.stem
        return data
    data.name = name
    if data.widths != WIDTHS[name]:
        raise UserError(f"{path}: feature widths are {data.widths}, {name} has {WIDTHS[name]}")
    if data.sha256 != PUBLISHED_SHA256[name]:
        published = f"that of the published {name} file is {PUBLISHED_SHA256[name]}"
        so = "the kit continues with this file, but its results may not be comparable with published ones"
        warnings.warn(f"{path}: its sha256 is {data.sha256}, {published}; {so}", stacklevel=3)
    return data


def read_file(path: Path) -> MultimodalData:
    """Read and check a pickle in the MMSA schema."""
    splits, notes = check_content(read_pickle(path), path)
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256")
    return MultimodalData(path.stem, splits, digest.hexdigest(), path=path, notes=notes)


def open_converted(folder: Path) -> MultimodalData:
    """Open a folder written by `imder convert`; features and text_bert stay on disk, memory-mapped and unread.

    A UserError if it is incomplete, or shapes, types, labels, lengths, ids or texts do not fit.
    """
    if not (folder / MANIFEST).exists():
        raise UserError(f"{folder} has no {MANIFEST}: give a pickle file, or a folder that imder convert has written")
    try:
        place = folder / MANIFEST
        manifest = json.loads(place.read_text())
        sha256, entries, notes = manifest["sha256"] + "", manifest["splits"], list(manifest.get("notes", ()))
        content: dict = {"modalities": entries["train"]["modalities"]}
        for name in SPLITS:
            place, entry = folder / MANIFEST, entries[name]
            if entry["modalities"] != content["modalities"]:
                raise UserError(f"split {name!r} has other modalities than 'train': {entry['modalities']}")
            part = content[name] = {}
            for key, shape in entry["shapes"].items():
                place = folder / f"{name}.{key}.npy"
                part[key] = np.load(place, mmap_mode="r")
                if list(part[key].shape) != shape:
                    raise UserError(f"{place.name} has shape {part[key].shape}, the manifest says {shape}")
            place = folder / f"{name}.json"
            meta = json.loads(place.read_text())
            part |= {"id": meta["ids"], "raw_text": meta["texts"]}
            for key in [k for k in part if k.startswith("lengths.")]:
                part[key.removeprefix("lengths.") + "_lengths"] = part.pop(key)
            if LABELS[0] in part and part[LABELS[0]].dtype == np.int64:
                part[LABELS[1]] = part.pop(LABELS[0])
        splits, _ = check_content(content, folder, whole=False)
    except UserError as error:
        what = str(error).removeprefix(f"{folder}: ")
        raise UserError(f"{folder}: {what}; if the folder was changed, run imder convert again") from None
    except Exception as error:  # a damaged file can raise nearly anything
        why = f"{type(error).__name__}: {error!s:.120}"
        raise UserError(f"{folder} is not a converted data set: {place} ({why}): run imder convert again") from None
    return MultimodalData(folder.name, splits, sha256, path=folder, notes=notes)
