"""Converting a pickle to a folder of arrays, for data that do not fit into memory."""

import json
from pathlib import Path

import numpy as np

from imder_lib.data.load import MANIFEST, open_converted, read_file
from imder_lib.data.mmsa import LABELS
from imder_lib.data.schema import MultimodalData
from imder_lib.errors import UserError
from imder_lib.files import written_whole


def convert(path: str | Path, folder: str | Path) -> MultimodalData:
    """Write the arrays of a pickle to a new folder that is memory-mapped when opened, and open it.

    The folder holds SPLIT.KEY.npy (float32 features, labels, lengths, text_bert, available), SPLIT.json (ids and
    texts) and a manifest with the shapes and the SHA-256 of the pickle. A UserError, as in
    :func:`load_data` or for a folder that exists or cannot be written, leaves nothing behind.
    """
    path, folder = Path(path), Path(folder)
    if not path.is_file():
        raise UserError(f"no file at {path}")
    with written_whole(folder, new=True) as part:
        data = read_file(path)
        part.mkdir()
        manifest = {"source": path.name, "sha256": data.sha256, "notes": data.notes, "splits": {}}
        for name, s in data.splits.items():
            arrays = s.features | {LABELS[0]: s.labels} | {f"lengths.{m}": n for m, n in s.lengths.items()}
            arrays |= {k: x for k, x in (("text_bert", s.text_bert), ("available", s.available)) if x is not None}
            for key, x in arrays.items():
                dtype = np.float32 if key in s.features else np.int32 if key == "text_bert" else x.dtype
                np.save(part / f"{name}.{key}.npy", np.ascontiguousarray(x, dtype))
            (part / f"{name}.json").write_text(json.dumps({"ids": s.ids, "texts": s.texts}))
            shapes = {key: x.shape for key, x in arrays.items()}
            manifest["splits"][name] = {"shapes": shapes, "modalities": list(s.features), "steps": s.steps}
        (part / MANIFEST).write_text(json.dumps(manifest, indent=1))
    return open_converted(folder)
