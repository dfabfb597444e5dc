"""The progress of an unfinished build, stored next to its shards so that the same command can continue it.

.NAME.partial/progress.jsonl    the build's identity, then one line per finished shard
.NAME.partial/data/             renamed to NAME when the build is complete
"""

import json
import os
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from latentscale.atomic import flush_to_disk
from latentscale.errors import UserError
from latentscale.regular_files import read_json
from latentscale.shards.partial_dataset import DATA, PROGRESS, progress_lines
from latentscale.shards.shard_format import ShardEntry

_HEADERS_FILE = "looked.json"


@dataclass
class SplitProgress:
    """The progress of a split up to its last finished shard.

    Attributes:
        entries: the finished shards.
        extensions: file extensions of their images, in order of first appearance.
        item: index of the first item that is not completely in finished shards.
        sample: how many samples of that item are in finished shards.
        listing: SHA-256 over the items in finished shards, including a partly written one.
        skipped: items left out, with the reason.
        notes: how many items each pixel conversion was applied to.
        ended: whether the split is complete.
    """

    entries: list[ShardEntry] = field(default_factory=list)
    extensions: list[str] = field(default_factory=list)
    item: int = 0
    sample: int = 0
    listing: str = ""
    skipped: list[tuple[str, str]] = field(default_factory=list)
    notes: Counter[str] = field(default_factory=Counter)
    ended: bool = False


class BuildProgress:
    """The folder of an unfinished build.

    Args:
        folder: the ``.NAME.partial`` folder; the caller holds its lock.
        identity: describes the build; a folder with another identity is refused.

    Attributes:
        data: the folder that the shards are written to.

    Raises:
        UserError: the folder holds an unfinished build with another identity.
    """

    def __init__(self, folder: Path, identity: dict[str, Any]) -> None:
        self.data = folder / DATA
        self._log = folder / PROGRESS
        self._headers_file = folder / _HEADERS_FILE
        self._done: dict[str, SplitProgress] = {}
        self._read(identity, folder)

    def _read(self, identity: dict[str, Any], folder: Path) -> None:
        lines = progress_lines(self._log)
        # without a finished shard there is nothing to continue
        if len(lines) < 2 or not self.data.is_dir():
            shutil.rmtree(self.data, ignore_errors=True)
            self.data.mkdir()
            self._log.write_text(json.dumps({"identity": identity}) + "\n", encoding="utf-8")
            flush_to_disk(self._log)
            flush_to_disk(folder)
            return
        if (before := lines[0].get("identity")) != identity:
            raise UserError(
                f"{folder} holds an unfinished build with another source or other options "
                f"({_difference(before, identity)}): use the same options, or discard it with --restart"
            )
        for line in lines[1:]:
            done = self._done.setdefault(line["split"], SplitProgress())
            if line["entry"] is not None:
                done.entries.append(ShardEntry(**line["entry"]))
            done.skipped += [(name, reason) for name, reason in line["skipped"]]
            done.notes = Counter(line["notes"])
            for name in ("extensions", "item", "sample", "listing", "ended"):
                setattr(done, name, line[name])

    def kept_headers(self, listing: str) -> Any:
        """What an earlier run found in the headers of this listing's images, or None."""
        try:
            found = read_json(self._headers_file)
            return found["found"] if found["listing"] == listing else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def keep_headers(self, listing: str, found: Any) -> None:
        """Store what the headers say, so that a resumed build does not read them again."""
        self._headers_file.write_text(json.dumps({"listing": listing, "found": found}), encoding="utf-8")

    def of(self, split: str) -> SplitProgress:
        """The progress of a split; empty unless an earlier run finished a shard of it."""
        return self._done.get(split, SplitProgress())

    def record(
        self, split: str, done: SplitProgress, finished: ShardEntry | None, skipped: Sequence[tuple[str, str]]
    ) -> None:
        """Log a split's progress: the shard just finished, if any, and the items skipped since the last call."""
        line = {
            "split": split,
            "entry": asdict(finished) if finished is not None else None,
            "skipped": list(skipped),
            "notes": dict(done.notes),
            **{name: getattr(done, name) for name in ("extensions", "item", "sample", "listing", "ended")},
        }
        flush_to_disk(self.data / split)
        with self._log.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(line) + "\n")
            stream.flush()
            os.fsync(stream.fileno())


def _difference(before: Any, now: dict[str, Any]) -> str:
    if not isinstance(before, dict):
        return "its progress file is damaged"
    old, new = _flat(before), _flat(now)
    different = [name for name in {**new, **old} if old.get(name) != new.get(name)]
    more = f"; and {len(different) - 3} more" if len(different) > 3 else ""
    shown = (f"{name} was {_short(old.get(name))}, now {_short(new.get(name))}" for name in different[:3])
    return "; ".join(shown) + more


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested options as flat keys such as ``images.resolution``."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        flat.update(_flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value})
    return flat


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
