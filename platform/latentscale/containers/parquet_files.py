"""Columns of parquet files: what their schema says, and single rows without a whole file in memory."""

import json
import os
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from latentscale.containers.input_files import file_stamp
from latentscale.errors import UserError

if TYPE_CHECKING:
    import pyarrow

KEPT_BYTES = 2**28
"""Decoded images of a row group that a process keeps; a larger group is decoded again for earlier rows."""

_BATCH_ROWS = 16
_BUFFER_BYTES = 2**20


@dataclass(frozen=True)
class ParquetFile:
    """What a file holds.

    Attributes:
        path: of the file.
        stamp: size and modification time.
        rows: number of rows of each row group.
        images: for each column of bytes, the path of its bytes in the schema; see :func:`image_path`.
        columns: the names of all columns.
        types: Hugging Face's type of columns, such as ``Image`` or ``ClassLabel``.
        names: the classes' names of its columns of class labels.
    """

    path: Path
    stamp: tuple[int, int]
    rows: tuple[int, ...]
    images: dict[str, str]
    columns: tuple[str, ...]
    types: dict[str, str]
    names: dict[str, tuple[str, ...]]


def open_parquet(path: Path) -> ParquetFile:
    """Read a file's schema and Hugging Face's description in it.

    Raises:
        UserError: pyarrow is not installed, or the file is damaged.
    """
    with _naming(path):
        stamp = file_stamp(path)
        file = _opened(path, stamp)
        schema, metadata = file.schema_arrow, file.metadata
        types, names = _features((schema.metadata or {}).get(b"huggingface", b""))
        return ParquetFile(
            path,
            stamp,
            tuple(metadata.row_group(number).num_rows for number in range(metadata.num_row_groups)),
            {field.name: found for field in schema if (found := image_path(field))},
            tuple(schema.names),
            types,
            names,
        )


def image_path(column: "pyarrow.Field") -> str:
    """The path in the schema of a column's bytes: of bytes themselves, or of a struct with bytes; else empty."""
    import pyarrow.types as kinds

    def is_bytes(kind: Any) -> bool:
        return bool(kinds.is_binary(kind) or kinds.is_large_binary(kind) or kinds.is_binary_view(kind))

    if is_bytes(column.type):
        return str(column.name)
    if kinds.is_struct(column.type):
        index = column.type.get_field_index("bytes")
        if index >= 0 and is_bytes(column.type.field(index).type):
            return f"{column.name}.bytes"
    return ""


def read_column(file: ParquetFile, column: str) -> Iterator[list[Any]]:
    """The values of a column, one list per row group.

    Raises:
        UserError: the file is damaged.
    """
    with _naming(file.path):
        opened = _opened(file.path, file.stamp)
        for group in range(len(file.rows)):
            yield opened.read_row_group(group, columns=[column], use_threads=False).column(0).to_pylist()


def missing_bytes(file: ParquetFile, column: str) -> bool:
    """Whether the file's statistics say that no row of a column of images has bytes.

    Raises:
        UserError: the column is encrypted.
    """
    for rows, chunk in zip(file.rows, _chunks(file, column), strict=True):
        known = chunk.is_stats_set and chunk.statistics.has_null_count
        if not known or chunk.statistics.null_count < rows:
            return False
    return bool(sum(file.rows))


def group_bytes(file: ParquetFile, column: str) -> int:
    """Size of the largest row group's images, as the file says it."""
    return max((chunk.total_uncompressed_size for chunk in _chunks(file, column)), default=0)


def _chunks(file: ParquetFile, column: str) -> Iterator[Any]:
    """What the file says about a column of images, for each row group.

    Raises:
        UserError: the column is encrypted. pyarrow ends the process where this is asked of an encrypted column.
    """
    with _naming(file.path):
        opened = _opened(file.path, file.stamp)
        metadata, path = opened.metadata, file.images[column]
        if file.rows and _footer_bytes(file.path) != metadata.serialized_size:  # it is signed, as are encrypted files
            next(opened.iter_batches(1, row_groups=[0], columns=[path], use_threads=False), None)
        schema = metadata.schema
        number = next(number for number in range(len(schema)) if schema.column(number).path == path)
    for group in range(metadata.num_row_groups):
        yield metadata.row_group(group).column(number)


def _footer_bytes(path: Path) -> int:
    with path.open("rb") as stream:
        stream.seek(-8, os.SEEK_END)
        return int.from_bytes(stream.read(4), "little")


def read_bytes(file: ParquetFile, column: str, group: int, row: int) -> bytes | None:
    """The bytes of one row, of a row group; None if there are none.

    Raises:
        UserError: the file is damaged.
    """
    with _naming(file.path):
        return _group_of(file, column, group).row(row)


@dataclass
class _Group:
    """A row group, decoded forwards in small batches. They are kept as long as they are small together."""

    file: ParquetFile
    column: str
    number: int
    size: int = 0
    _starts: list[int] = field(default_factory=list)
    _batches: list[Any] = field(default_factory=list)
    _next_row: int = 0
    _source: Iterator[Any] | None = None

    def row(self, row: int) -> bytes | None:
        """The bytes of a row."""
        if self._source is None or (self._starts and row < self._starts[0]):
            self._restart()
        while row >= self._next_row:
            self._read()
        index = bisect_right(self._starts, row) - 1
        value = self._batches[index][row - self._starts[index]]
        if not value.is_valid:
            return None
        content: bytes | None = (value["bytes"] if self._batches[index].type.num_fields else value).as_py()
        return content

    def _restart(self) -> None:
        opened = _opened(self.file.path, self.file.stamp)
        path = self.file.images[self.column]
        self._source = opened.iter_batches(_BATCH_ROWS, row_groups=[self.number], columns=[path], use_threads=False)
        self._starts, self._batches, self._next_row, self.size = [], [], 0, 0

    def _read(self) -> None:
        assert self._source is not None
        try:
            batch = next(self._source, None)
        except Exception:
            self._source = None  # it would say that there are no more rows
            raise
        if batch is None:
            self._source = None
            raise ValueError(f"row group {self.number} has {self._next_row} rows, fewer than it promises")
        values = batch.column(0)
        if self.size + values.nbytes > KEPT_BYTES:
            self._starts, self._batches, self.size = [], [], 0
        self._starts.append(self._next_row)
        self._batches.append(values)
        self.size += values.nbytes
        self._next_row += len(values)


ParquetFileKey = tuple[Path, tuple[int, int]]

_groups: "OrderedDict[tuple[ParquetFileKey, str, int], _Group]" = OrderedDict()


def _group_of(file: ParquetFile, column: str, number: int) -> _Group:
    key = ((file.path, file.stamp), column, number)
    group = _groups.pop(key, None) or _Group(file, column, number)
    while _groups and sum(each.size for each in _groups.values()) + group.size > 2 * KEPT_BYTES:
        _groups.popitem(last=False)
    _groups[key] = group
    return group


_open_files: "OrderedDict[ParquetFileKey, Any]" = OrderedDict()


def _opened(path: Path, stamp: tuple[int, int]) -> Any:
    try:
        import pyarrow.parquet as parquet
    except ImportError as error:
        raise UserError("parquet needs pyarrow: pip install 'latentscale[parquet]'") from error
    if (path, stamp) not in _open_files:
        while len(_open_files) >= 8:
            _open_files.popitem(last=False)
        # with a buffer, a column is read in pieces and not as a whole
        _open_files[path, stamp] = parquet.ParquetFile(
            path, buffer_size=_BUFFER_BYTES, pre_buffer=False, page_checksum_verification=True
        )
    return _open_files[path, stamp]


def _features(content: bytes) -> tuple[dict[str, str], dict[str, tuple[str, ...]]]:
    if not content:
        return {}, {}
    features = json.loads(content)["info"]["features"]
    types: dict[str, str] = {}
    names: dict[str, tuple[str, ...]] = {}
    for column, feature in features.items():
        if not isinstance(feature, dict) or not isinstance(feature.get("_type"), str):
            continue
        types[column] = feature["_type"]
        given: Sequence[Any] | None = feature.get("names")
        if feature["_type"] == "ClassLabel" and given is not None:
            if not isinstance(given, list) or not all(isinstance(name, str) for name in given):
                raise ValueError(f"the names of the classes of {column} are no list of texts")
            names[column] = tuple(given)
    return types, names


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    try:
        yield
    except (UserError, MemoryError):
        raise
    except Exception as error:  # pyarrow raises errors of many kinds for damaged bytes, and JSON those of its own
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        way = "fetch it again"
        if "decrypt" in reason.lower() or "encrypt" in reason.lower():
            way = "it is encrypted, so write it anew without encryption"
        elif "codec" in reason.lower() or "compression" in reason.lower():
            way = "write it anew with compression='zstd'"
        raise UserError(f"{path} cannot be read ({reason}): {way}") from error
