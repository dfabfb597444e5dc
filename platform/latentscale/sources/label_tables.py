"""Tables of labels as CSV or JSON: one row for each image, with the image's name and one or several labels."""

import csv
import io
import json
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from latentscale.sources.listing import is_image

FILE_TITLES = frozenset(
    (
        *("file", "filename", "filepath", "fileid", "name", "path", "id"),
        *("image", "imagename", "imagepath", "imageid", "imagefile", "imagefilename", "imageindex"),
        *("img", "imgname", "imgpath", "imgid", "imgfile"),
    )
)
"""Titles of a column of file names, in small letters and without other characters."""

_DELIMITERS = ",;\t|"
_PANDAS_INDEX = re.compile(r"|Unnamed: ?\d+")
_SHOWN_CHARACTERS = 60


@dataclass(frozen=True)
class LabelTable:
    """The rows of a label file.

    Attributes:
        titles: titles of the labels; none where the file says that there are no labels.
        rows: for each image, its name as the file has it, and its labels; an empty label is missing.
    """

    titles: tuple[str, ...]
    rows: Sequence[tuple[str, tuple[str, ...]]]


@dataclass(frozen=True)
class Columns:
    """A table before it is known which column names the images.

    Attributes:
        titles: titles of the columns.
        rows: the cells of each row, stripped.
        file_columns: numbers of the columns that may name the images.
    """

    titles: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    file_columns: tuple[int, ...]

    def table(self, file_column: int) -> LabelTable:
        """The table whose images are named by that column.

        Other columns with the title of one are no labels, unless there are no others or it is a ``name`` of no file.

        Raises:
            ValueError: there is no column of labels.
        """
        others = [number for number in range(len(self.titles)) if number != file_column]
        labels = [number for number in others if number not in self.file_columns or self._has_names(number)]
        chosen = labels or others
        if not chosen:
            raise ValueError(f"it has no column of labels beside {self.titles[file_column]}")
        return LabelTable(
            tuple(self.titles[number] for number in chosen),
            [(row[file_column], tuple(row[number] for number in chosen)) for row in self.rows],
        )

    def _has_names(self, column: int) -> bool:
        """Whether a column holds names of people or things, not of files."""
        named = _plain(self.titles[column]) in ("name", "image", "img")
        return named and not all(is_image(row[column]) for row in self.rows)


def read_text(content: bytes) -> str:
    """The text of a file in UTF-8, or in UTF-16 with its mark, as Excel's "Unicode text" has it.

    Raises:
        ValueError: it is neither.
    """
    encoding = "utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        raise ValueError("it is not text in UTF-8: save it as UTF-8") from error


def clean(value: str) -> str:
    """A cell without spaces around it, with characters composed (NFC), so that what looks equal is equal.

    Raises:
        ValueError: it holds half a surrogate pair, which no file can.
    """
    if not value.isascii():
        value = unicodedata.normalize("NFC", value)
        if any("\ud800" <= character <= "\udfff" for character in value):
            raise ValueError(f"{_shown(value)} is not valid Unicode")
    return value.strip()


def csv_columns(content: bytes) -> Columns:
    """Parse CSV with a line of titles, separated by commas, semicolons, tabs or bars.

    The index that pandas writes (a first column without a title, of different whole numbers) is dropped, and so are
    empty columns and rows without a cell that has a value.

    Raises:
        ValueError, csv.Error: the table has another form; the message says which part is wrong.
    """
    text = read_text(content)
    if text.lower().startswith("sep=") and len(text.partition("\n")[0].strip()) == len("sep=;"):
        # Excel's own line for the separator
        text = text.partition("\n")[2]
    first = next((line for line in text.splitlines() if line.strip()), "")
    delimiter = max(_DELIMITERS, key=first.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True)
    rows = [cells for row in reader if any(cells := tuple(map(clean, row)))]
    if not rows:
        raise ValueError("its first line must be titles, such as file,label, but it is empty")
    titles = _without_end(rows[0], 1)
    for number, row in enumerate(rows[1:], 1):
        rows[number] = row = _without_end(row, len(titles))
        if len(row) != len(titles):
            raise ValueError(f"the line of {_shown(row[0])} has {len(row)} values instead of {len(titles)}")
    return columns(titles, rows[1:], "its first line must be titles, such as file,label")


def columns(titles: Sequence[str], rows: Sequence[tuple[str, ...]], rule: str = "") -> Columns:
    """Find the columns that may name images, and drop columns without a title that hold nothing or pandas's index.

    Args:
        titles: titles of the columns, stripped.
        rows: cells of every row, as many as there are titles.
        rule: begins the message where no title is one of files.

    Raises:
        ValueError: no title is one of files, a title is missing, or two are equal.
    """
    kept = []
    for number, title in enumerate(titles):
        if _PANDAS_INDEX.fullmatch(title):
            cells = [row[number] for row in rows]
            if not any(cells) or _is_index(cells):
                continue
            if not title:
                raise ValueError(f"its column {number + 1} has no title: give it one")
        kept.append(number)
    titles, rows = [titles[number] for number in kept], [tuple(row[number] for number in kept) for row in rows]
    for title, times in Counter(titles).items():
        if times > 1:
            raise ValueError(f"it has {times} columns with the title {_shown(title)}: keep one")
    files = tuple(number for number, title in enumerate(titles) if _plain(title) in FILE_TITLES)
    if not files:
        found = ", ".join(map(_shown, titles[:5]))
        rule = rule or "one of its titles must be file"
        raise ValueError(f"{rule}, but {found} name no column of files: call that column file")
    return Columns(tuple(titles), rows, files)


def json_columns(content: bytes) -> Columns | LabelTable:
    """Parse labels in JSON.

    Read are ``{"cat/1.png": "cat", …}``, where several labels are a list or an object; StyleGAN's ``{"labels":
    [["1.png", 3], …]}``, whatever other keys stand beside ``labels``, whose null means that there are no labels; a list
    of such pairs; and a list of records, ``[{"file": "1.png", "label": "cat"}, …]``.

    Raises:
        ValueError: the JSON has another form, or a label is neither a whole number nor a name.
    """
    try:
        data = json.loads(read_text(content), object_pairs_hook=_object)
    except RecursionError as error:
        raise ValueError("its JSON is nested too deeply") from error
    if isinstance(data, dict) and isinstance(data.get("images"), list) and "annotations" in data:
        raise ValueError("it holds COCO's annotations, in which an image has several")
    if (
        isinstance(data, dict)
        and "labels" in data
        and (data["labels"] is None or isinstance(data["labels"], (dict, list)))
    ):
        data = data["labels"] or []
    if isinstance(data, dict):
        return _from_pairs(list(data.items()))
    if not isinstance(data, list):
        raise ValueError(f"it holds {_shown(data)}, not an object or a list")
    if data and all(isinstance(record, dict) for record in data):
        return record_columns(data)
    for pair in data:
        if not isinstance(pair, list) or len(pair) != 2 or not isinstance(pair[0], str):
            raise ValueError(f"its entry {_shown(pair)} is not a pair of a file name and a label")
    return _from_pairs([(name, value) for name, value in data])


def json_lines_columns(content: bytes) -> Columns:
    """Parse one JSON record in each line.

    Raises:
        ValueError: a line is no record, or a label is neither a whole number nor a name.
    """
    records = []
    for number, line in enumerate(read_text(content).splitlines(), 1):
        if line.strip():
            try:
                record = json.loads(line, object_pairs_hook=_object)
            except (ValueError, RecursionError) as error:
                raise ValueError(f"its line {number} is not JSON ({error})") from error
            if not isinstance(record, dict):
                raise ValueError(f"its line {number} holds {_shown(record)}, not an object")
            records.append(record)
    return record_columns(records)


def record_columns(records: Sequence[dict[str, Any]]) -> Columns:
    """The columns of records that have the same keys; a missing or null value is empty.

    Raises:
        ValueError: no key names files, or a value is neither a whole number nor a name.
    """
    titles = list(dict.fromkeys(key for record in records for key in record))
    rows = [tuple(label_text(record.get(title)) for title in titles) for record in records]
    return columns([clean(title) for title in titles], rows)


def label_text(value: Any) -> str:
    """A label in JSON as the text that CSV would have; empty for null.

    Raises:
        ValueError: it is neither a whole number nor a name.
    """
    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        raise ValueError(f"the label {_shown(value)} is neither a whole number nor a name")
    return clean(str(value))


def _from_pairs(pairs: Sequence[tuple[str, Any]]) -> LabelTable:
    if not pairs:
        return LabelTable((), [])
    first = pairs[0][1]
    kinds = {type(value) if isinstance(value, (dict, list)) else str for _, value in pairs}
    if len(kinds) > 1:
        raise ValueError("some of its images have one label, others a list or an object of them")
    if isinstance(first, dict):
        titles = tuple(first)
        for name, value in pairs:
            if value.keys() != first.keys():
                raise ValueError(f"{_shown(name)} has the labels {_shown(list(value))}, not {_shown(list(titles))}")
        rows = [(name, tuple(label_text(value[title]) for title in titles)) for name, value in pairs]
        titles = tuple(map(clean, titles))
    elif isinstance(first, list):
        titles = tuple(f"label{number}" for number in range(len(first)))
        rows = [(name, tuple(map(label_text, values))) for name, values in pairs]
        if not titles or any(len(values) != len(titles) for _, values in rows):
            raise ValueError(f"not every image has {max(len(titles), 1)} labels")
    else:
        titles, rows = ("label",), [(name, (label_text(value),)) for name, value in pairs]
    return LabelTable(titles, rows)


def _without_end(row: tuple[str, ...], length: int) -> tuple[str, ...]:
    """A row without the empty cells at its end that are beyond ``length``."""
    while len(row) > length and not row[-1]:
        row = row[:-1]
    return row


def _is_index(cells: Iterable[str]) -> bool:
    cells = list(cells)
    return all(cell.isascii() and cell.isdigit() for cell in cells) and len(set(cells)) == len(cells)


def _plain(title: str) -> str:
    return re.sub(r"[^a-z0-9]", "", title.lower())


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    for name, times in Counter(name for name, _ in pairs).items():
        if times > 1:
            raise ValueError(f"it names {_shown(name)} twice")
    return dict(pairs)


def _shown(value: Any) -> str:
    text = ascii(value) if not (isinstance(value, str) and value.isprintable()) else repr(value)
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[: _SHOWN_CHARACTERS - 3]}..."
