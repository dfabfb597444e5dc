"""Labels that WebDataset keeps beside the images of a tar: ``KEY.cls``, or an entry of ``KEY.json``."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field

from latentscale.errors import UserError
from latentscale.sources.labels import Labels, labels_from_columns
from latentscale.sources.listing import display_name
from latentscale.wording import counted

MAX_LABEL_BYTES = 2**20
"""A larger .cls or .json member is refused: it is no label."""

_USUAL_FIELDS = ("cls", "json.label")


@dataclass(frozen=True)
class _Field:
    """One source of labels: the ending of the members, and the key of a JSON object."""

    name: str
    suffix: str
    key: str = ""


@dataclass(frozen=True)
class Image:
    """An image member: the tar it is in, and its name there."""

    tar: str
    name: str


@dataclass
class MemberLabels:
    """Collects the labels of the members of one or several tars.

    Args:
        fields: what holds the labels, as ``--label-field`` says it; if empty, ``.cls`` and ``label`` in ``.json``.
    """

    fields: Sequence[str] = ()
    unlabelled_json: int = 0
    _values: dict[str, dict[str, dict[str, str | UserError]]] = field(default_factory=dict)

    def suffixes(self) -> frozenset[str]:
        """Endings of the members to give to :meth:`add`."""
        return frozenset(f".{each.suffix.lower()}" for each in self._fields())

    def add(self, tar: str, name: str, content: bytes) -> None:
        """Read a member; what is wrong in it is raised if an image needs it."""
        for each in self._fields():
            if not name.lower().endswith(f".{each.suffix.lower()}"):
                continue
            member = f"{tar} member {display_name(name)}"
            value: str | UserError | None
            try:
                value = _json_value(content, each.key, member) if each.key else _text_value(content, member)
            except UserError as error:
                value = error
            if value is None:
                self.unlabelled_json += 1
                continue
            values = self._values.setdefault(each.name, {}).setdefault(tar, {})
            key = name[: -len(each.suffix) - 1]
            if key in values:
                value = UserError(
                    f"{member} is in the archive twice: its labels may differ, so fetch or write it again"
                )
            values[key] = value

    def found(self, images: Sequence[Image]) -> bool:
        """Whether any image has a label, or a member that should be one."""
        return any(self._has(each.name, images) for each in self._fields())

    def assign(self, images: Sequence[Image]) -> tuple[Labels, list[int], str, list[str]]:
        """Label every image.

        Returns:
            The labels, the label of each image, where they are from, and lines to print for the user.

        Raises:
            UserError: an image has no label, two images share one, or two fields contradict each other.
        """
        names = [each.name for each in self._fields() if self._has(each.name, images)]
        for name in self.fields:
            if name not in names:
                raise UserError(f"--label-field {name}: no member holds such labels: leave it out, or name another")
        columns = [self._column(name, images) for name in names]
        if not self.fields and len(columns) == 2:
            if columns[0] != columns[1]:
                number = next(n for n, (a, b) in enumerate(zip(*columns, strict=True)) if a != b)
                raise UserError(
                    f"{images[number].tar} member {display_name(images[number].name)} has the label "
                    f"{display_name(columns[0][number])} in .cls and {display_name(columns[1][number])} in .json: "
                    "choose one with --label-field cls or --label-field json.label"
                )
            columns, names = columns[:1], names[:1]
        titles = [name.rpartition(".")[2] if name != "cls" else "class" for name in names]
        labels, numbers = labels_from_columns(titles, columns)
        notes = []
        for name in names:
            unused = sum(map(len, self._values[name].values())) - len({self._key(name, image) for image in images})
            if unused:
                notes.append(f"ignored {counted(unused, 'label')} in .{name} without an image")
        return labels, numbers, " and ".join(f".{name}" for name in names), notes

    def _fields(self) -> list[_Field]:
        return [_parsed(name) for name in self.fields or _USUAL_FIELDS]

    def _has(self, name: str, images: Sequence[Image]) -> bool:
        return name in self._values and any(self._value(name, image) is not None for image in images)

    def _value(self, name: str, image: Image) -> str | UserError | None:
        return self._values[name].get(image.tar, {}).get(self._key(name, image)[1])

    def _column(self, name: str, images: Sequence[Image]) -> list[str]:
        owners: dict[tuple[str, str], Image] = {}
        column, missing = [], []
        for image in images:
            key, value = self._key(name, image), self._value(name, image)
            if value is None:
                missing.append(image)
                continue
            if isinstance(value, UserError):
                raise value
            if (other := owners.setdefault(key, image)) is not image:
                raise UserError(
                    f"{image.tar} members {display_name(other.name)} and {display_name(image.name)} have one key and "
                    "one label: choose which is the image with --image-field, such as --image-field "
                    f"{display_name(extension(other.name))}, or use --labels none"
                )
            column.append(value)
        if missing:
            more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
            raise UserError(
                f"{missing[0].tar} member {display_name(missing[0].name)}{more} (of {counted(len(images), 'image')}) "
                f"has no label in a .{name.partition('.')[0]} beside it, but others do: add the missing labels, choose "
                "others with --label-field, or use --labels none"
            )
        return column

    def _key(self, name: str, image: Image) -> tuple[str, str]:
        """The tar and key of an image: its name to the last dot or, as WebDataset reads it, to the first."""
        stem = image.name.rpartition(".")[0]
        values = self._values[name].get(image.tar, {})
        return image.tar, stem if stem in values else sample_key(image.name)


def sample_key(name: str) -> str:
    """The key under which WebDataset puts a member: its name to the first dot after the last slash."""
    folder, slash, base = name.rpartition("/")
    return folder + slash + base.partition(".")[0]


def extension(name: str) -> str:
    """What follows the key."""
    return name.rpartition("/")[2].partition(".")[2]


def _parsed(name: str) -> _Field:
    suffix, dot, key = name.removeprefix(".").partition(".")
    if suffix.lower() == "json":
        return _Field(name, "json", key if dot else "label")
    return _Field(name, name.removeprefix("."))


def _text_value(content: bytes, member: str) -> str:
    try:
        text = content.decode("utf-8").strip()
    except UnicodeDecodeError as error:
        raise UserError(f"{member} is not text in UTF-8: write it again, or use --labels none") from error
    if not text or not text.isprintable() or len(text) > 1000:
        raise UserError(f"{member} must hold one label: write it again, or use --labels none")
    return _label(text, member)


def _json_value(content: bytes, key: str, member: str) -> str | None:
    """The label in a JSON object; None if it has none, as it may describe the image in another way."""
    try:
        value = json.loads(content)
    except (ValueError, RecursionError):
        return None
    value = value.get(key) if isinstance(value, dict) else None
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, str | int) or not str(value).strip():
        raise UserError(
            f"{member}: its {display_name(key)} must be a name or a whole number, got "
            f"{display_name(json.dumps(value)[:60])}: fix it, name another with --label-field json.KEY, or use "
            "--labels none"
        )
    return _label(str(value).strip(), member)


def _label(text: str, member: str) -> str:
    digits = text.removeprefix("-").removeprefix("+")
    if not (digits.isascii() and digits.isdigit()) or len(digits) > 18:
        return text
    if text.startswith("-"):
        raise UserError(
            f"{member} holds the label {text}, as images without a label do: remove them, or use --labels none"
        )
    return str(int(text))
