"""Images in uncompressed tar files, read at their byte offsets: trees, WebDataset's samples, and tars of tars."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from latentscale.containers.input_files import InputFile, InputFiles, input_files
from latentscale.containers.tar_members import TarFile, is_hidden, read_members
from latentscale.errors import UserError
from latentscale.regular_files import read_json
from latentscale.shards.dataset_json import read_description
from latentscale.shards.shard_format import FORMAT
from latentscale.sources.archives import MAX_LABEL_FILE_BYTES, TOO_LARGE
from latentscale.sources.file_splits import FileSplits, split_files
from latentscale.sources.label_tables import LabelFile
from latentscale.sources.labels import Labels
from latentscale.sources.listing import (
    LABEL_FILES,
    MAX_FILE_BYTES,
    Item,
    Listing,
    Problem,
    UnreadableItem,
    display_name,
    is_image,
    is_label_file,
    may_hold_labels,
    origin_notes,
    other_notes,
)
from latentscale.sources.member_labels import MAX_LABEL_BYTES, Image, MemberLabels, extension, sample_key
from latentscale.sources.source_options import SourceOptions
from latentscale.sources.split_folders import split_of_folder
from latentscale.sources.splits_and_labels import SidecarFiles, split_and_label
from latentscale.storage.dataset_files import DATASET_FILE
from latentscale.storage.local import LocalFolder

_BY_OPTION = ("auto", "folders", "none")


@dataclass(frozen=True)
class TarReader:
    """Reads members of tar files at their byte offsets.

    Attributes:
        paths: of the tars; an item's place is the number of its tar, its offset and its size.
    """

    paths: tuple[Path, ...]

    def read(self, item: Item) -> bytes:
        number, offset, size = item.place
        with self.paths[number].open("rb") as stream:
            content = os.pread(stream.fileno(), size, offset)
        if len(content) != size:
            raise UnreadableItem(f"is cut off after {len(content)} of {size} bytes")
        return content


def list_tars(paths: Sequence[Path], options: SourceOptions) -> Listing:
    """List the images of one or several tar files; folders in them mean the same as those of a tree.

    Splits are those that the tars' names say, if there are several, or else the top folders in them. Labels are those
    that WebDataset keeps beside the images, or else a label file or the folders. In a tar of tars the name of an inner
    tar is a folder.

    Raises:
        UserError: a tar cannot be read, is compressed or damaged; there are no images; or a label or a split is missing
            or unclear.
    """
    given = input_files(paths, (".tar",), "tar", options.follow_symlinks)
    splits = split_files([file.name for file in given.files], options, given.location) if len(given.files) > 1 else None
    return _Tars(given, splits, options).listing()


@dataclass
class _Members:
    """The images of a tar, what cannot be used, and the other files by name."""

    images: list[TarFile] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    others: dict[str, TarFile] = field(default_factory=dict)


class _Tars:
    """Several tars that make one dataset.

    Args:
        given: the tars.
        splits: the split of each, where their names say it.
        options: ``label_field``, ``image_field``, ``labels``, ``split`` and ``splits`` are used.
    """

    def __init__(self, given: InputFiles, splits: FileSplits | None, options: SourceOptions) -> None:
        self._given, self._splits, self._options = given, splits, options
        self._files: Sequence[InputFile] = given.files
        self._labels = MemberLabels(options.label_field)
        self._reader = TarReader(tuple(file.path for file in given.files))
        self._members: dict[int, _Members] = {}
        if options.label_field and options.labels != "auto":
            raise UserError(f"--label-field and --labels {options.labels} contradict each other: leave one out")

    def listing(self) -> Listing:
        """See :func:`list_tars`."""
        for number, file in enumerate(self._files):
            if self._splits is None or self._splits.of_file[number]:
                self._members[number] = self._read(number, file)
        items, problems = self._items()
        if not items and not problems:
            raise UserError(f"{self._given.location} holds no images: name an archive of images")
        notes = [*self._given.notes, *(self._splits.notes if self._splits else [])]
        options = self._options
        if self._splits is not None:
            # the tars' names have said it, and are the top folders of the items' names
            options = replace(options, splits="")
        labels = Labels()
        origin = ""
        if options.label_field or self._labels.found(self._images(items)):
            self._refuse_label_files()
            labels, items, origin, more = self._labelled(items)
            notes += more
            options = replace(options, labels="none")
        elif self._splits is not None and options.labels not in _BY_OPTION:
            labels, items, more = self._labelled_by_file(items, options)
            notes += more
            options = replace(options, labels="none")
        assigned = split_and_label(items, options, self._sidecars(), self._given.location)
        labels = assigned.labels if assigned.labels.names else labels
        notes += [
            *self._ignored(origin, assigned.described),
            *assigned.notes,
            *origin_notes(assigned.splits, labels, origin),
        ]
        return Listing(
            name=self._given.name,
            licence="unknown",
            splits=assigned.splits,
            reader=self._reader,
            tree=self._given.tree,
            read_in_place=self._given.stamps(),
            labels=labels,
            sorted_by_label=bool(labels.names),
            same_in_test=options.split == "all",
            problems=sorted(problems),
            notes=notes,
        )

    def _read(self, number: int, file: InputFile) -> _Members:
        wanted = self._labels.suffixes() if self._options.labels == "auto" else frozenset()

        def take(name: str, content: bytes) -> None:
            if name.rpartition("/")[2] not in (*LABEL_FILES, DATASET_FILE):
                self._labels.add(str(file.path), name, content)

        found = read_members(file.path, wanted, MAX_LABEL_BYTES, take)
        members = _Members(problems=[Problem(name, reason) for name, reason in found.problems])
        for member in found.files:
            if not is_image(member.name):
                members.others[member.name] = member
            elif member.size > MAX_FILE_BYTES:
                members.problems.append(Problem(member.name, TOO_LARGE))
            else:
                members.images.append(member)
        if ending := self._options.image_field.removeprefix(".").lower():
            endings = sorted({extension(image.name) for image in members.images})
            members.images = [image for image in members.images if extension(image.name).lower() == ending]
            if endings and not members.images:
                raise UserError(
                    f"--image-field {ending}: {file.path} has no such images, but images that end in "
                    f"{', '.join(map(display_name, endings[:5]))}: name one of these"
                )
        return members

    def _items(self) -> tuple[list[Item], list[Problem]]:
        """The images, named by their splits and their names in the tars, and what cannot be used."""
        items: dict[str, Item] = {}
        twice: set[str] = set()
        problems: set[Problem] = set()
        owner: dict[str, int] = {}
        for number, members in self._members.items():
            stamp = self._files[number].stamp
            problems |= {Problem(self._split_name(number, name), reason) for name, reason in members.problems}
            for image in members.images:
                name = self._split_name(number, image.name)
                key = sample_key(name)
                if (other := owner.setdefault(key, number)) != number:
                    raise UserError(
                        f"{display_name(image.name)} is in the archive twice, by its key, in {self._files[other].path} "
                        f"and in {self._files[number].path}: keep one of them, or write them with unique keys"
                    )
                if name in items:
                    twice.add(name)
                place = (number, image.offset, image.size)
                items[name] = Item(name, place, (image.size, image.time, *stamp))
        for name in twice:
            del items[name]
            problems.add(Problem(name, "is in the archive twice"))
        return sorted(items.values(), key=lambda item: item.name), sorted(problems)

    def _split_name(self, number: int, name: str) -> str:
        """The name of a member below the folder of its tar's split."""
        if self._splits is None:
            return name
        split = self._splits.of_file[number]
        first, _, rest = name.partition("/")
        inner = split_of_folder(first) if rest else ""
        if not inner:
            return f"{split}/{name}"
        if inner != split and self._options.split == "published" and not self._options.splits:
            raise UserError(
                f"{self._files[number].path} holds {display_name(name)}, which names the {inner} split, but the tar's "
                f"name says {split}: say which it is with --splits {split}={self._files[number].name}, or take all "
                "for training with --split none"
            )
        return f"{split}/{rest}"

    def _images(self, items: Sequence[Item]) -> list[Image]:
        names = {
            (number, image.offset): image.name for number, found in self._members.items() for image in found.images
        }
        return [Image(str(self._files[item.place[0]].path), names[item.place[:2]]) for item in items]

    def _labelled(self, items: Sequence[Item]) -> tuple[Labels, list[Item], str, list[str]]:
        labels, numbers, origin, notes = self._labels.assign(self._images(items))
        if origin == ".cls" and (own := self._own_labels()):
            codes = [int(labels.names[number]) for number in numbers]
            if max(codes) >= len(own.names):
                raise UserError(
                    f"{self._files[0].path} has the label {max(codes)}, but {DATASET_FILE} beside it names "
                    f"{len(own.names)} labels: move {DATASET_FILE} away, or fetch both again"
                )
            labels, numbers, origin = own, codes, f".cls, with names from {DATASET_FILE}"
        labelled = [replace(item, label=label) for item, label in zip(items, numbers, strict=True)]
        return labels, labelled, origin, notes

    def _own_labels(self) -> Labels | None:
        """The labels' meaning as our dataset.json beside every tar says it; None if the tars are not our shards."""
        found: list[Labels] = []
        for folder in {file.path.parent for file in self._files}:
            try:
                content: Any = read_json(folder / DATASET_FILE)
            except (OSError, ValueError):
                return None
            if not isinstance(content, dict) or content.get("format") != FORMAT:
                return None
            description = read_description(LocalFolder(folder))
            shards = {entry["file"] for entry in description["shards"]}
            if not {file.path.name for file in self._files if file.path.parent == folder} <= shards:
                return None
            sizes, of = description.get("label_sizes") or (), description.get("label_names") or ()
            found.append(Labels(tuple(description["labels"]), tuple(sizes), tuple(of)))
        return found[0] if found[0].names and all(labels == found[0] for labels in found) else None

    def _labelled_by_file(self, items: Sequence[Item], options: SourceOptions) -> tuple[Labels, list[Item], list[str]]:
        """The items with labels of ``--labels FILE``, which names them as they are called in the tars."""
        bare = [replace(item, name=image.name) for item, image in zip(items, self._images(items), strict=True)]
        if len({item.name for item in bare}) < len(bare):
            raise UserError(
                f"--labels {options.labels} cannot tell members of two splits of {self._given.location} that have the "
                "same name: build each split by itself"
            )
        options = replace(options, split="none", splits="")
        sidecars = SidecarFiles([], lambda name: None)
        assigned = split_and_label(sorted(bare, key=lambda item: item.name), options, sidecars, self._given.location)
        label_of = {item.place: item.label for split in assigned.splits.values() for item in split}
        return assigned.labels, [replace(item, label=label_of[item.place]) for item in items], assigned.notes

    def _sidecars(self) -> SidecarFiles:
        places: dict[str, tuple[int, str]] = {}
        for number, members in self._members.items():
            for name in members.others:
                if not is_label_file(name) and name.rpartition("/")[2] != DATASET_FILE:
                    continue
                known = self._split_name(number, name)
                if (other := places.setdefault(known, (number, name)))[0] != number and is_label_file(name):
                    raise UserError(
                        f"{self._files[other[0]].path} and {self._files[number].path} both hold {display_name(name)}: "
                        "name one file of all labels with --labels FILE, or use --labels folders or none"
                    )

        def read(known: str) -> LabelFile | None:
            if known not in places:
                return None
            number, name = places[known]
            member = self._members[number].others[name]
            location = f"{self._files[number].path} member {name}"
            if member.size > MAX_LABEL_FILE_BYTES:
                return None
            try:
                return LabelFile(location, self._reader.read(Item(name, (number, member.offset, member.size), ())))
            except (OSError, UnreadableItem) as error:
                raise UserError(f"{location} {error}: fetch the archive again") from error

        return SidecarFiles([known for known, (_, name) in places.items() if is_label_file(name)], read)

    def _refuse_label_files(self) -> None:
        if self._options.label_field:
            return
        for number, members in self._members.items():
            for name in members.others:
                if is_label_file(name):
                    raise UserError(
                        f"{self._files[number].path} holds labels in {display_name(name)} and also beside the images: "
                        "choose the latter with --label-field cls or --label-field json.label, or extract the file "
                        "and name it with --labels FILE"
                    )

    def _ignored(self, origin: str, described: bool) -> list[str]:
        """What members were not read."""
        read = self._labels.suffixes() if origin else frozenset()
        endings: dict[str, int] = {}
        tables: list[str] = []
        for members in self._members.values():
            for name in members.others:
                if is_hidden(name) or is_label_file(name) or name.lower().endswith(tuple(read) or "\0"):
                    continue
                if described and name.rpartition("/")[2] == DATASET_FILE:
                    continue
                endings[extension(name)] = endings.get(extension(name), 0) + 1
                tables += [name] * (not origin and self._options.labels != "none" and may_hold_labels(name))
        notes = other_notes(sum(endings.values()), "member", tables)
        shown = sorted((ending for ending in endings if ending), key=lambda ending: -endings[ending])[:5]
        if not notes or tables or not shown:
            return notes
        return [f"{notes[0]} ({', '.join(f'.{display_name(ending)}' for ending in shown)})"]
