"""Labels of images that stand beside them in a tar, as WebDataset has them: KEY.cls, or the label of KEY.json."""

import json
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from latentscale.errors import UserError
from latentscale.sources.listing import display_name
from latentscale.wording import counted

_LONGEST_LABEL_BYTES = 2**16


@dataclass(frozen=True)
class LabelsBeside:
    """The label of each image.

    Attributes:
        title: what the label is called.
        values: by the image's name.
        origin: where they are from, for messages.
        members: number of members that held them.
    """

    title: str
    values: dict[str, str]
    origin: str
    members: int


def labels_beside(
    images: Sequence[str], others: Collection[str], read: Callable[[str], bytes], location: str
) -> LabelsBeside | None:
    """Read the labels beside images; None if there are none.

    A member's key ends at the first dot of its name.

    Args:
        images: names of the images.
        others: names of all other members.
        read: returns the content of another member.
        location: the archive, for messages.

    Raises:
        UserError: an image has none although others do, or one of them is not a label.
    """
    for suffix, parse in ((".cls", _class), (".json", _label)):
        beside = {key(name): name for name in others if name.endswith(suffix) and name == key(name) + suffix}
        if not beside:
            continue
        values: dict[str, str] = {}
        without = []
        for image in images:
            name = beside.get(key(image))
            content = b"" if name is None else read(name)
            if len(content) > _LONGEST_LABEL_BYTES:
                content = b""
            value = None if name is None else parse(content, f"{location} member {display_name(name)}")
            if value is None:
                without.append(image)
            else:
                values[image] = value
        if not values:
            continue
        if without:
            more = f" and {len(without) - 1} more" if len(without) > 1 else ""
            raise UserError(
                f"{location}: {display_name(without[0])}{more} (of {counted(len(images), 'image')}) has no label in a "
                f"{suffix} beside it, but others do: add the missing ones, or use --labels none"
            )
        origin = f"the {suffix} members beside them"
        return LabelsBeside("class" if suffix == ".cls" else "label", values, origin, len(values))
    return None


def key(name: str) -> str:
    """A member's name up to the first dot after its folder."""
    folder, slash, base = name.rpartition("/")
    return folder + slash + base.partition(".")[0]


def _class(content: bytes, where: str) -> str:
    try:
        text = content.decode("utf-8").strip()
    except UnicodeDecodeError as error:
        raise UserError(f"{where} is not text in UTF-8: write it again, or use --labels none") from error
    if not text or "\n" in text:
        raise UserError(f"{where} must hold one label: write it again, or use --labels none")
    return text


def _label(content: bytes, where: str) -> str | None:
    """The label in a JSON object; None if it has none."""
    try:
        data = json.loads(content)
    except (ValueError, RecursionError):
        return None  # it may describe the image in another way
    if not isinstance(data, dict) or "label" not in data:
        return None
    label = data["label"]
    if isinstance(label, bool) or not isinstance(label, str | int) or not str(label).strip():
        raise UserError(f"{where}: its label must be a name or a whole number: write it again, or use --labels none")
    return str(label).strip()
