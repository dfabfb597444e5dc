"""The label of every sample of a dataset, from its indexes."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file

from latentscale.errors import UserError


def stored_labels(folder: Path, description: dict[str, Any]) -> NDArray[np.int64]:
    """The label of each sample, −1 without one, ``[N]``.

    Args:
        folder: of this machine.
        description: the content of its dataset.json.

    Raises:
        UserError: an index cannot be read.
    """
    labels = []
    for shard in description["shards"]:
        path = folder / shard["index"]
        try:
            labels.append(load_file(path)["label"].astype(np.int64))
        except (OSError, SafetensorError, KeyError) as error:
            raise UserError(f"{path} cannot be read ({error}): copy it again or build the shards again") from error
    return np.concatenate(labels)
