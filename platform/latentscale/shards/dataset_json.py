"""Reading and validating dataset.json."""

import json
import math
import re
from collections.abc import Callable
from typing import Any, Protocol

from latentscale.errors import UserError
from latentscale.shards.shard_format import FORMAT, VERSION
from latentscale.storage.dataset_files import DATASET_FILE

_SHA256 = re.compile("[0-9a-f]{64}")
_LARGEST = 2**63 - 1
# batch memory is allocated from this size before any file is read
_LARGEST_SAMPLE = 2**28


class DescribedFolder(Protocol):
    """The part of a folder that reading its dataset.json needs."""

    def location(self, name: str) -> str:
        """Return the full name of a file, for messages."""

    def description(self) -> str:
        """Return the text of dataset.json; raises OSError or UserError if it cannot be read."""


def read_description(folder: DescribedFolder) -> dict[str, Any]:
    """Read and validate a folder's dataset.json.

    Raises:
        UserError: the file is missing, unreadable, incomplete, in another format or of a newer version.
    """
    location = folder.location(DATASET_FILE)
    try:
        text = folder.description()
    except (OSError, UnicodeDecodeError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
        raise UserError(
            f"{location} cannot be read ({' '.join(reason.split())}): name a folder written by latentscale shards build"
        ) from error
    try:
        description = json.loads(text)
        if description["format"] != FORMAT:
            raise ValueError(f"format {description['format']!r}")
        version = int(description["version"])
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        # Python's words for a wrong type name its own types
        reason = "a value of another kind" if isinstance(error, TypeError) else str(error)
        raise UserError(
            f"{location} does not describe a latentscale dataset ({reason}): name a folder written by latentscale"
            " shards build"
        ) from error
    if version > VERSION:
        raise UserError(
            f"{location} has format version {version}, but this latentscale reads versions up to {VERSION}: install a"
            " newer one"
        )
    try:
        _check(description)
    except ValueError as error:
        raise UserError(f"{location} is incomplete or damaged ({error}): rebuild the dataset") from error
    return dict(description)


def _check(description: dict[str, Any]) -> None:
    """Raise ValueError if a value has the wrong type or range; later code relies on these checks."""
    _check_values(description, _REQUIRED, "")
    _check_values(description, {key: kind for key, kind in _OPTIONAL.items() if description.get(key) is not None}, "")
    sizes, labels = description.get("label_sizes"), len(description["labels"])
    if sizes and math.prod(sizes) != labels:
        raise ValueError(f"label_sizes {sizes} give {math.prod(sizes)} combinations, but there are {labels} labels")
    if math.prod(description["shape"]) > _LARGEST_SAMPLE:
        raise ValueError(f"shape {description['shape']} exceeds the limit of {_LARGEST_SAMPLE} values per sample")
    for number, entry in enumerate(description["shards"]):
        _check_values(entry, _SHARD_ENTRY, f" of shard {number}")
        if unknown := entry.keys() - _SHARD_ENTRY.keys():
            raise ValueError(f"shard {number} has an unknown key {min(unknown)}")


def _check_values(found: dict[str, Any], kinds: dict[str, tuple[Callable[[Any], bool], str]], of: str) -> None:
    for key, (is_valid, kind) in kinds.items():
        if key not in found:
            raise ValueError(f"{key}{of} is missing")
        if not is_valid(value := found[key]):
            text = value if isinstance(value, str) and value.isprintable() else ascii(value)
            raise ValueError(f"{key}{of} must be {kind}, got {text[:80]}")


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 < value <= _LARGEST


def _is_list(is_element: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, list) and all(map(is_element, value))


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_object(value: Any) -> bool:
    return isinstance(value, dict)


def _is_file_name(value: Any) -> bool:
    return isinstance(value, str) and value not in ("", ".", "..") and not set(value) & set("/\\\0")


def _is_sha256(value: Any) -> bool:
    return isinstance(value, str) and _SHA256.fullmatch(value) is not None


def _is_generated(value: Any) -> bool:
    return isinstance(value, dict) and value.keys() == {"fingerprint"} and _is_sha256(value["fingerprint"])


_REQUIRED: dict[str, tuple[Callable[[Any], bool], str]] = {
    "name": (_is_text, "a string"),
    "shape": (
        lambda value: _is_list(_is_count)(value) and len(value) in (1, 3),
        "[channels, height, width] or [dimensions], all positive integers",
    ),
    "count": (_is_count, "a positive integer"),
    "labels": (_is_list(_is_text), "a list of strings"),
    "licence": (_is_text, "a string"),
    "extensions": (_is_list(_is_file_name), "a list of file name extensions"),
    "shards": (_is_list(_is_object), "a list of objects"),
}
_OPTIONAL: dict[str, tuple[Callable[[Any], bool], str]] = {
    "label_sizes": (_is_list(_is_count), "a list of positive integers"),
    "label_names": (_is_list(_is_text), "a list of strings"),
    "source": (_is_text, "a string"),
    "transform": (_is_object, "an object"),
    "converted": (_is_object, "an object"),
    "left_out": (_is_list(_is_text), "a list of strings"),
    "split": (_is_object, "an object"),
    "generated": (_is_generated, "an object with only a fingerprint (the SHA-256 of the values)"),
}
_SHARD_ENTRY: dict[str, tuple[Callable[[Any], bool], str]] = {
    "file": (_is_file_name, "a plain file name"),
    "index": (_is_file_name, "a plain file name"),
    "count": (_is_count, "a positive integer"),
    "bytes": (_is_count, "a positive integer"),
    "sha256": (_is_sha256, "a SHA-256 of 64 hexadecimal digits"),
    "index_sha256": (_is_sha256, "a SHA-256 of 64 hexadecimal digits"),
}
