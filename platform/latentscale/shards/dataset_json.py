"""Reading a dataset.json: what must be in it, and what is wrong with it where it is not."""

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
# what a batch takes is a multiple of it, and comes before the first file is looked at
_LARGEST_SAMPLE = 2**28


class DescribedFolder(Protocol):
    """A folder as far as its description is concerned."""

    def location(self, name: str) -> str:
        """A file as messages name it."""

    def description(self) -> str:
        """The text of dataset.json; OSError or UserError where there is none."""


def read_description(folder: DescribedFolder) -> dict[str, Any]:
    """The content of a folder's dataset.json.

    Raises:
        UserError: it is missing, unreadable, of another format or of a newer version, or lacks something.
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
        raise UserError(
            f"{location} is not a description of shards ({error}): name a folder written by latentscale shards build"
        ) from error
    if version > VERSION:
        raise UserError(
            f"{location} has format version {version}, this program reads up to {VERSION}: install a newer latentscale"
        )
    try:
        _check(description)
    except ValueError as error:
        raise UserError(f"{location} is incomplete or damaged ({error}): build the shards again") from error
    return dict(description)


def _check(description: dict[str, Any]) -> None:
    """Raise ValueError where a value is not what its readers take it for: they go on with it unasked."""
    _check_values(description, _NEEDED, "")
    _check_values(description, {key: kind for key, kind in _OPTIONAL.items() if description.get(key) is not None}, "")
    sizes, labels = description.get("label_sizes"), len(description["labels"])
    if sizes and math.prod(sizes) != labels:
        raise ValueError(f"label_sizes {sizes} make no {labels} labels")
    if math.prod(description["shape"]) > _LARGEST_SAMPLE:
        raise ValueError(f"shape {description['shape']} is more than the {_LARGEST_SAMPLE} numbers a sample may have")
    for number, entry in enumerate(description["shards"]):
        _check_values(entry, _OF_SHARD, f" of shard {number}")
        if unknown := entry.keys() - _OF_SHARD.keys():
            raise ValueError(f"{min(unknown)} of shard {number} is unknown")


def _check_values(found: dict[str, Any], kinds: dict[str, tuple[Callable[[Any], bool], str]], of: str) -> None:
    for key, (is_right, kind) in kinds.items():
        if key not in found:
            raise ValueError(f"{key}{of} is missing")
        if not is_right(value := found[key]):
            text = value if isinstance(value, str) and value.isprintable() else ascii(value)
            raise ValueError(f"{key}{of}: {text[:80]} is no {kind}")


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


_NEEDED: dict[str, tuple[Callable[[Any], bool], str]] = {
    "name": (_is_text, "text"),
    "shape": (
        lambda value: _is_list(_is_count)(value) and len(value) in (1, 3),
        "[channels, height, width] or [numbers]",
    ),
    "count": (_is_count, "positive number"),
    "labels": (_is_list(_is_text), "list of names"),
    "licence": (_is_text, "text"),
    "extensions": (_is_list(_is_file_name), "list of file name extensions"),
    "shards": (_is_list(_is_object), "list of objects"),
}
_OPTIONAL: dict[str, tuple[Callable[[Any], bool], str]] = {
    "label_sizes": (_is_list(_is_count), "list of positive numbers"),
    "label_names": (_is_list(_is_text), "list of names"),
    "source": (_is_text, "text"),
    "transform": (_is_object, "object"),
    "converted": (_is_object, "object"),
    "left_out": (_is_list(_is_text), "list of lines"),
    "split": (_is_object, "object"),
    "generated": (_is_generated, "object with the fingerprint (a SHA-256) of the values"),
}
_OF_SHARD: dict[str, tuple[Callable[[Any], bool], str]] = {
    "file": (_is_file_name, "plain file name"),
    "index": (_is_file_name, "plain file name"),
    "count": (_is_count, "positive number"),
    "bytes": (_is_count, "positive number"),
    "sha256": (_is_sha256, "SHA-256 of 64 hexadecimal digits"),
    "index_sha256": (_is_sha256, "SHA-256 of 64 hexadecimal digits"),
}
