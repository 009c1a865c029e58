"""load_data: one door to synthetic data, digits, two moons, the named data sets and any file in the MMSA schema."""

import json
import os
import shutil
import warnings
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from imder_lib.config import WIDTHS
from imder_lib.data.digits import digits
from imder_lib.data.mmsa import check_content
from imder_lib.data.pickles import pieces, read_pickle, sha256_of
from imder_lib.data.schema import SPLITS, MultimodalData, Split, training_scale
from imder_lib.data.synthetic import RECIPES, synthetic
from imder_lib.data.two_moons import two_moons
from imder_lib.errors import UserError

MANIFEST = "manifest.json"
NAMES = (*RECIPES, "digits", "two_moons", *WIDTHS)
# SHA-256 of aligned_50.pkl as its makers published it.
PUBLISHED_SHA256 = {
    "mosi": "d3994fd25681f9c7ad6e9c6596a6fe9b4beb85ff7d478ba978b124139002e5f9",
    "mosei": "45eccfb748a87c80ecab9bfac29582e7b1466bf6605ff29d3b338a75120bf791",
}
DATA_ROOT = Path(__file__).resolve().parents[2] / "data"  # of the checkout


def load_data(
    source: str | Path,
    *,
    root: str | Path = DATA_ROOT,
    standardise: bool = False,
    sizes: Mapping[str, int] | None = None,
    widths: Mapping[str, int] | None = None,
    steps: int | None = None,
    seed: int = 0,
) -> MultimodalData:
    """A data set, checked.

    Args:
        source: "synthetic" (a process with hidden styles) or "gaussian" (one without); "digits" (scikit-learn's, in
            classes); "two_moons"; "mosi" or "mosei" (a converted set in ROOT/NAME, or ROOT/NAME/aligned_50.pkl or
            ROOT/NAME.pkl); or a path to a pickle in the MMSA schema or a converted folder.
        root: where named data sets lie.
        standardise: per-feature, with the statistics of the training split; all-zero frames stay zero.
        sizes: of a process, or of two moons; what is not given is the default.
        widths, steps: of a process; what is not given is the process's own.
        seed: of a process, of two moons, or of the digits' splits.

    A named data set whose file is not the published one gives a warning. A path never bears a data set's name, so that
    published numbers do not come to stand beside other data.

    Raises:
        UserError: no such data, or data that does not fit; names split, key and row.
    """
    if str(source) in RECIPES:
        data = synthetic(sizes, widths, steps, seed, str(source))
    elif str(source) == "digits":
        data = digits(seed)
    elif str(source) == "two_moons":
        data = two_moons(sizes, seed)
    else:
        path, name = _find(str(source), Path(root))
        data = open_converted(path) if path.is_dir() else _read(path)
        data.name = name
        if name in WIDTHS:
            _compare_with_published(data, path)
    if standardise:
        scale = training_scale(data.train.features)
        for split in data.splits.values():
            split.scale = scale
    return data


def _find(source: str, root: Path) -> tuple[Path, str]:
    if source not in WIDTHS:
        path = Path(source)
        if not path.exists():
            raise UserError(f"no data at {source!r}: expected one of {NAMES} or a path to a file")
        return path, f"{path.stem} (file)" if path.stem in NAMES else path.stem
    places = [root / source, root / source / "aligned_50.pkl", root / f"{source}.pkl"]
    for place in places:
        if place.is_file() or (place / MANIFEST).is_file():
            return place, source
    raise UserError(f"{source} is not here: put its aligned_50.pkl at {places[1]} (README: 'MOSI and MOSEI')")


def _compare_with_published(data: MultimodalData, path: Path) -> None:
    name, want = data.name, PUBLISHED_SHA256[data.name]
    if data.widths != WIDTHS[name]:
        raise UserError(f"{path}: feature widths are {data.widths}, {name} has {WIDTHS[name]}")
    if data.sha256 != want:
        warnings.warn(
            f"{path}: its sha256 is {data.sha256}, that of the published {name} file is {want}; the kit goes on with "
            "this file, but its numbers may not compare with published ones",
            stacklevel=3,
        )


def _read(path: Path) -> MultimodalData:
    content = read_pickle(path)
    return MultimodalData(path.stem, check_content(content, path), sha256_of(path))


def convert(path: str | Path, folder: str | Path) -> MultimodalData:
    """Write a pickle once as memory-mapped arrays with a manifest; then open it.

    The folder appears whole or not at all.
    """
    path, folder = Path(path), Path(folder)
    if not path.is_file():
        raise UserError(f"no file at {path}")
    if folder.exists():
        raise UserError(f"{folder} exists already: name a new folder, or remove it first")
    data = _read(path)
    part = folder.with_name(f".{folder.name}.part{os.getpid()}")
    try:
        part.mkdir(parents=True)
        manifest = {"source": path.name, "sha256": data.sha256, "splits": {}}
        for name, s in data.splits.items():
            arrays = {**s.features, "regression_labels": s.labels}
            arrays |= {f"lengths.{m}": n for m, n in s.lengths.items()}
            arrays |= {} if s.text_bert is None else {"text_bert": s.text_bert}
            for key, array in arrays.items():
                kind = np.float32 if key in s.features else np.int32 if key == "text_bert" else array.dtype
                _write_array(part / f"{name}.{key}.npy", array, np.dtype(kind))
            (part / f"{name}.json").write_text(json.dumps({"ids": s.ids, "texts": s.texts}))
            shapes = {key: list(a.shape) for key, a in arrays.items()}
            manifest["splits"][name] = {"shapes": shapes, "modalities": list(s.features), "steps": s.steps}
        (part / MANIFEST).write_text(json.dumps(manifest, indent=1))
        part.rename(folder)
    except OSError as error:
        raise UserError(f"{folder} cannot be written: {error.strerror}") from None
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return open_converted(folder)


def _write_array(path: Path, array: np.ndarray, dtype: np.dtype) -> None:
    """An .npy file, written in pieces: the array is never in memory whole."""
    with path.open("wb") as file:
        header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": array.shape}
        np.lib.format.write_array_header_1_0(file, header)
        for _, piece in pieces(array):
            file.write(np.ascontiguousarray(piece, dtype).data)


def open_converted(folder: Path) -> MultimodalData:
    """Open a converted set; arrays stay on disk and are mapped, not copied."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
        splits = {}
        for name in SPLITS:
            entry = manifest["splits"][name]
            arrays = {}
            for key, shape in entry["shapes"].items():
                arrays[key] = np.load(folder / f"{name}.{key}.npy", mmap_mode="r")
                if list(arrays[key].shape) != shape:
                    got = arrays[key].shape
                    raise UserError(
                        f"{folder}: {name}.{key}.npy has shape {got}, the manifest says {shape}: convert again"
                    )
            meta = json.loads((folder / f"{name}.json").read_text())
            features = {m: arrays[m] for m in entry["modalities"]}
            splits[name] = Split(
                features,
                np.array(arrays["regression_labels"]),
                meta["ids"],
                entry["steps"],
                texts=meta["texts"],
                lengths={m: np.array(arrays[f"lengths.{m}"]) for m in features if f"lengths.{m}" in arrays},
                text_bert=arrays.get("text_bert"),
            )
    except (OSError, KeyError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{folder} is no converted data set ({error!s:.120}): run imder convert again") from None
    return MultimodalData(folder.name, splits, manifest["sha256"])
