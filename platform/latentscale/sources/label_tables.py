"""Label files: CSV, JSON and JSON lines, as people and other tools write them, become rows of values by image name."""

import csv
import io
import json
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from latentscale.decoding.image_suffixes import IMAGE_SUFFIXES, suffix
from latentscale.errors import UserError
from latentscale.sources.listing import display_name

FILE_TITLES = (
    "file", "filename", "filepath", "name", "image", "imagename", "imagefile", "imagefilename", "imageid", "imagepath",
    "imageindex", "img", "imgname", "imgpath", "imgid", "id", "path",
)  # fmt: skip
"""Titles of the column that names the images, in small letters, without spaces and underscores."""

LABEL_TITLES = ("label", "labels", "class", "category", "target")
"""Titles of a column of labels in a file that also describes images otherwise."""

METADATA_FILES = ("metadata.csv", "metadata.jsonl")
"""Names that Hugging Face's image folders give such files."""

_WHOLE_FLOAT = re.compile(r"[+-]?\d+(\.0*)?", re.ASCII)
_INDEX_TITLE = re.compile(r"|unnamed: ?\d+|index")
_SHOWN = 40


@dataclass(frozen=True)
class LabelFile:
    """The content of a label file, and its name for messages."""

    name: str
    content: bytes


@dataclass
class LabelTable:
    """What a label file says.

    Attributes:
        titles: of the labels; empty if the file gives none.
        rows: the values of each named image, one per title.
        notes: lines to print for the user.
        none: whether the file says that the images have no labels.
    """

    titles: list[str] = field(default_factory=list)
    rows: dict[str, list[str]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    none: bool = False


class _Damaged(Exception):
    """The reason why a file is not a label file."""


def read_label_table(file: LabelFile) -> LabelTable:
    """Parse a label file.

    Raises:
        UserError: naming the file, what is wrong in it, and the remedy.
    """
    base = PurePosixPath(file.name.replace("\\", "/")).name.lower()
    parse: Callable[[bytes, bool], LabelTable] = {".json": _json_table, ".jsonl": _jsonl_table}.get(
        PurePosixPath(base).suffix, _csv_table
    )
    try:
        table = parse(file.content, base in METADATA_FILES)
    except _Damaged as error:
        raise UserError(
            f"{file.name} is not a label file ({error}): fix it, or build without labels by --labels none"
        ) from error
    table.notes = [f"{file.name}: {note}" for note in table.notes]
    return table


def _csv_table(content: bytes, describes: bool) -> LabelTable:
    text = _decoded(content).replace("\0", "\ufffd")
    if re.fullmatch(r"sep=[,;|\t]", text.partition("\n")[0].strip(" \r"), re.IGNORECASE):
        # Excel's own line for the separator
        text = text.partition("\n")[2]
    best: list[list[str]] = []
    damage = ""
    for separator in ",;\t|":
        try:
            reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True, skipinitialspace=True)
            rows = [cells for row in reader if any(cells := [cell.strip() for cell in row])]
        except csv.Error as error:
            damage = damage or f"line {reader.line_num} is not CSV: {error}"
            continue
        if rows and len(rows[0]) > max(1, len(best[0]) if best else 1):
            best = rows
    if not best and damage:
        raise _Damaged(damage)
    if not best:
        first = text.strip().splitlines()[:1]
        shown = f"is {_shown(first[0])}" if first else "is missing"
        raise _Damaged(f"its first line must be titles, such as file,label or file;label, but {shown}")
    titles = _without_end(best[0], 1)
    rows = [[_composed(cell) for cell in _without_end(row, len(titles))] for row in best[1:]]
    for number, row in enumerate(rows, 2):
        if len(row) != len(titles):
            raise _Damaged(
                f"row {number} ({_shown(row[0])}) has {len(row)} values, but its first row has {len(titles)} titles"
            )
    key = _file_column(titles, rows)
    columns = _label_columns(titles, rows, key)
    labels = [_numbers_as_integers([row[i] for row in rows]) for i in columns]
    named = [(row[key], [column[number] for column in labels]) for number, row in enumerate(rows)]
    return _table(named, [titles[i] for i in columns], describes)


def _numbers_as_integers(cells: list[str]) -> list[str]:
    """A column of whole numbers that a missing one has turned into floats, ``1.0`` and ``nan``, as pandas writes it.

    The missing values become empty, and are refused by the image's name.
    """
    cells = ["" if cell.casefold() == "nan" else cell for cell in cells]
    if not all(_WHOLE_FLOAT.fullmatch(cell) or not cell for cell in cells):
        return cells
    return [cell.partition(".")[0] for cell in cells]


def _without_end(row: list[str], length: int) -> list[str]:
    """A row without the empty cells at its end that are beyond ``length``, such as Excel writes."""
    while len(row) > length and not row[-1]:
        row = row[:-1]
    return row


def _file_column(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> int:
    """The column that names the images: of those with such a title, the one with the most names of image files."""
    plain = [_plain(title) for title in titles]
    named = [number for number, title in enumerate(plain) if title in FILE_TITLES]
    if not named:
        raise _Damaged(
            f"its first line must be titles, such as file,label, with one for the images' names: file, filename, name, "
            f"image_id or path; but is {_shown(','.join(titles))}"
        )
    files = [sum(suffix(row[number]) in IMAGE_SUFFIXES for row in rows) for number in named]
    # "id" and "name" may also describe an image whose file has a column of its own
    ranked = sorted(
        zip(named, files, strict=True), key=lambda pair: (-pair[1], pair[0] != 0, FILE_TITLES.index(plain[pair[0]]))
    )
    return ranked[0][0]


def _label_columns(titles: Sequence[str], rows: Sequence[Sequence[str]], key: int) -> list[int]:
    """The columns of labels: all but the file's, an index as pandas writes it, and other names of the same image."""
    columns = []
    for number, title in enumerate(titles):
        cells = [row[number] for row in rows]
        counts = all(cell.isascii() and cell.isdigit() for cell in cells) and len(set(cells)) == len(cells)
        may_be_index = _INDEX_TITLE.fullmatch(title.casefold()) is not None
        if number == key or (may_be_index and (counts or not any(cells))):
            continue
        if not title:
            raise _Damaged(f"column {number + 1} has no title: give it one, or remove it")
        columns.append(number)
    others = [
        number for number in columns if _plain(titles[number]) not in FILE_TITLES or _is_name(titles, rows, number)
    ]
    return others or columns


def _is_name(titles: Sequence[str], rows: Sequence[Sequence[str]], number: int) -> bool:
    """Whether a column has names of people or things, not of files."""
    return _plain(titles[number]) == "name" and not all(suffix(row[number]) in IMAGE_SUFFIXES for row in rows)


def _plain(title: str) -> str:
    return re.sub(r"[\W_]+", "", title.casefold())


def _json_table(content: bytes, describes: bool) -> LabelTable:
    """``{"cat/1.png": "cat", …}`` (several labels: a list or an object), or such labels or pairs below ``labels``."""
    data = _json(_decoded(content))
    if isinstance(data, Mapping) and "labels" in data:
        images = [name for name in data if suffix(name) in IMAGE_SUFFIXES]
        if images and not isinstance(data["labels"], str | int):
            raise _Damaged(f"it has both labels and {_shown(images[0])} as keys: leave one of the two out")
        if not images:
            # other keys beside it describe the dataset
            data = data["labels"]
        if data in (None, [], {}):
            return LabelTable(notes=["it says that the images have no labels"], none=True)
    pairs: list[tuple[Any, Any]]
    if isinstance(data, Mapping):
        pairs = list(data.items())
    elif _is_pairs(data):
        pairs = [(name, value) for name, value in data]
    elif isinstance(data, list) and data and all(isinstance(row, Mapping) for row in data):
        return _records(data, describes)
    else:
        raise _Damaged(
            f'must be an object such as {{"1.png": "cat"}}, or {{"labels": [["1.png", 3]]}}; not {_kind(data)}'
        )
    return _values_table(pairs)


def _jsonl_table(content: bytes, describes: bool) -> LabelTable:
    rows = []
    for number, line in enumerate(_decoded(content).splitlines(), 1):
        if line.strip():
            row = _json(line, f"line {number} ")
            if not isinstance(row, Mapping):
                raise _Damaged(f'line {number} must be an object such as {{"file_name": "1.png", "label": "cat"}}')
            rows.append(row)
    return _records(rows, describes)


def _records(rows: Sequence[Mapping[str, Any]], describes: bool) -> LabelTable:
    """Rows of named values, one of which is the image's name."""
    if not rows:
        return LabelTable()
    titles = list(rows[0])
    for number, row in enumerate(rows, 1):
        if list(row) != titles and set(row) != set(titles):
            raise _Damaged(f"row {number} has the keys {_shown(', '.join(row))}, but the first has {', '.join(titles)}")
    cells = [[str(row[title]) for title in titles] for row in rows]
    key = titles[place := _file_column(titles, cells)]
    columns = [titles[number] for number in _label_columns(titles, cells, place)]
    if describes and (labels := [title for title in columns if title.casefold() in LABEL_TITLES]):
        ignored = [title for title in columns if title not in labels]
        table = _table([(_name(row[key]), [_text(row[t], row[key]) for t in labels]) for row in rows], labels, False)
        table.notes += _ignored(ignored)
        return table
    if describes:
        return LabelTable(notes=_ignored(columns))
    return _table([(_name(row[key]), [_text(row[t], row[key]) for t in columns]) for row in rows], columns, False)


def _values_table(pairs: Sequence[tuple[Any, Any]]) -> LabelTable:
    """Names with a value, a list of values, or an object of values."""
    if not pairs:
        return LabelTable(notes=["it names no image"], none=True)
    first = pairs[0][1]
    rows: list[tuple[str, list[str]]] = []
    if isinstance(first, Mapping):
        titles = list(first)
    elif isinstance(first, list):
        titles = [f"label{number}" for number in range(len(first))]
    else:
        titles = ["label"]
    for name, value in pairs:
        if isinstance(first, Mapping):
            if not isinstance(value, Mapping) or set(value) != set(titles):
                raise _Damaged(f"{_shown(name)} does not have the labels {', '.join(titles)} of the first image")
            values = [value[title] for title in titles]
        elif isinstance(first, list):
            if not isinstance(value, list) or len(value) != len(titles):
                raise _Damaged(f"{_shown(name)} does not have {len(titles)} labels, as the first image has")
            values = value
        else:
            values = [value]
        # one number for each image may be a class that became a float; several are a vector, such as a camera's
        rows.append((_name(name), [_text(each, name, whole_floats=not isinstance(first, list)) for each in values]))
    return _table(rows, titles, False)


def _table(rows: Sequence[tuple[str, list[str]]], titles: list[str], describes: bool) -> LabelTable:
    notes: list[str] = []
    if describes:
        kept = [number for number, title in enumerate(titles) if title.casefold() in LABEL_TITLES]
        notes = _ignored([title for number, title in enumerate(titles) if number not in kept])
        rows = [(name, [values[number] for number in kept]) for name, values in rows]
        titles = [titles[number] for number in kept]
    if not titles:
        if not describes:
            raise _Damaged("it has no column of labels, such as label")
        return LabelTable(notes=notes)
    if len(set(titles)) < len(titles):
        twice = next(title for title, times in Counter(titles).items() if times > 1)
        raise _Damaged(f"two columns have the title {_shown(twice)}: rename or remove one")
    for name, values in rows:
        if not name:
            raise _Damaged(f"a row with the label {_shown(', '.join(values))} names no image")
        if "" in values:
            title = titles[values.index("")]
            raise _Damaged(f"{_shown(name)} has no {title}")
    by_name = dict(rows)
    if len(by_name) != len(rows):
        twice = next(name for name, times in Counter(name for name, _ in rows).items() if times > 1)
        raise _Damaged(f"{_shown(twice)} stands in it twice")
    return LabelTable(titles, by_name, notes)


def _ignored(titles: Sequence[str]) -> list[str]:
    if not titles:
        return []
    shown = ", ".join(_shown(title) for title in titles[:5])
    return [f"ignored {shown}, not named label or class (as labels.csv or labels.jsonl all columns are labels)"]


def _decoded(content: bytes) -> str:
    # Excel's "Unicode text" is UTF-16
    encoding = "utf-16" if content.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig"
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        raise _Damaged(f"byte {error.start} is not UTF-8, in which it must be saved") from error


def _json(text: str, place: str = "") -> Any:
    try:
        return json.loads(text, object_pairs_hook=_object)
    except ValueError as error:
        raise _Damaged(f"{place or 'it '}is not JSON: {error}") from error
    except RecursionError as error:
        raise _Damaged(f"{place or 'it '}is nested too deeply") from error


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    for name, times in Counter(name for name, _ in pairs).items():
        if times > 1:
            raise _Damaged(f"{_shown(name)} stands in it twice")
    return dict(pairs)


def _is_pairs(data: Any) -> bool:
    return isinstance(data, list) and all(isinstance(pair, list) and len(pair) == 2 for pair in data)


def _name(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise _Damaged(f"{_shown(value)} is not an image's name")
    return str(value).strip()


def _kind(data: Any) -> str:
    """What JSON holds in place of labels, in words."""
    if isinstance(data, list):
        return f"a list that begins with {_shown(data[0])}" if data else "an empty list"
    return _shown(data)


def _text(value: Any, name: Any, whole_floats: bool = True) -> str:
    if whole_floats and isinstance(value, float) and value.is_integer():
        value = int(value)
    if value is None or value != value:
        raise _Damaged(f"{_shown(name)} has no label")
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise _Damaged(f"{_shown(name)} has the label {_shown(value)}, but labels must be names or whole numbers")
    return _composed(str(value).strip())


def _composed(value: str) -> str:
    """A value with its accents composed (NFC), so that labels that look equal are equal."""
    if value.isascii():
        return value
    if any("\ud800" <= character <= "\udfff" for character in value):
        raise _Damaged(f"{_shown(value)} is not valid Unicode")
    return unicodedata.normalize("NFC", value)


def _shown(value: Any) -> str:
    """A value for a one-line message."""
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    text = display_name(text)
    return repr(text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…") if isinstance(value, str) else text[:_SHOWN]
