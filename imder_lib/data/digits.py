"""scikit-learn's 1,797 handwritten 8x8 digits as three modalities: recovery becomes visible.

Modality ``top`` is the first three rows of pixels, ``middle`` the next two, ``bottom`` the last three; columns are time
steps. Pixels 0 to 16 are mapped to -1 (paper) to .88 (ink) without 0, because all-zero frames mean padding.
"""

import hashlib

import numpy as np

from imder_lib.data.schema import MultimodalData, Split

ROWS = {"top": slice(0, 3), "middle": slice(3, 5), "bottom": slice(5, 8)}
SIZES = {"train": 1257, "valid": 180, "test": 360}
CENTRE = 8.5  # between two pixel values


def digits(seed: int = 0) -> MultimodalData:
    """Modalities top (N, 8, 3), middle (N, 8, 2), bottom (N, 8, 3), classes 0 to 9; seed: of the stratified split."""
    from sklearn.datasets import load_digits  # here and not above: slow to import, and few commands need it
    from sklearn.model_selection import train_test_split

    images, labels = load_digits(return_X_y=True)
    images = (images.reshape(-1, 8, 8) / CENTRE - 1).astype(np.float32)  # (N, row, column)
    rest, test = train_test_split(np.arange(len(labels)), test_size=SIZES["test"], stratify=labels, random_state=seed)
    train, valid = train_test_split(rest, test_size=SIZES["valid"], stratify=labels[rest], random_state=seed)
    splits = {}
    for name, rows in {"train": train, "valid": valid, "test": test}.items():
        features = {m: np.ascontiguousarray(images[rows][:, part].swapaxes(1, 2)) for m, part in ROWS.items()}
        splits[name] = Split(features, labels[rows].astype(np.int64), [f"digits/{i}" for i in rows], 8)
    digest = hashlib.sha256(images.tobytes() + labels.tobytes() + repr((SIZES, seed)).encode()).hexdigest()
    return MultimodalData("digits", splits, digest)
