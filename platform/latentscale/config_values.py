"""Where text becomes configuration: arguments, preset files and typed values, with one door for whatever goes wrong."""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from io import StringIO
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import GrammarParseError, InterpolationResolutionError, OmegaConfBaseException

from latentscale.errors import UserError
from latentscale.value_types import kind_in_words
from latentscale.wording import shown

MAX_PRESET_BYTES = 2**20
_MAX_VALUE_CHARACTERS = 65_536
# YAML 1.1 reads 010 as 8 and 1:30 as 90
_SURPRISING = re.compile(r"[+-]?(0[0-9_]+|[0-9_]+(:[0-9_]+)+(\.[0-9_]*)?)")
_INTERNAL = re.compile(r"Config\b|<class|Error\b")
_LIBRARY_PREFIX = re.compile(r"^\w+ raised while resolving interpolation: ")


class _Unreadable(Exception):
    """What is wrong with a text, in words for the user."""


@contextmanager
def reading(what: str, remedy: str) -> Iterator[None]:
    """The one door for errors of the libraries that read what a user wrote.

    Whatever they raise (scanners, parsers, constructors, codecs, Python's limits of digits and of recursion) becomes
    one line: what was read, where in it, and the remedy.

    Args:
        what: names the key or the file.
        remedy: what to do instead.

    Raises:
        UserError: for any error of the body.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"{what}: {_reason(error)}: {remedy}") from error


def value_of(name: str, text: str, kind: Any) -> Any:
    """The value of an argument whose key is not text: a number, true or false, or a list.

    Raises:
        UserError: naming the key.
    """
    with reading(f"{name}={shown(text)}", f"it must be {kind_in_words(kind)}"):
        if len(text) > _MAX_VALUE_CHARACTERS:
            raise _Unreadable("it is too long")
        if _SURPRISING.fullmatch(text.strip()):
            raise _Unreadable("leading zeros and colons are not part of a number")
        read = OmegaConf.to_container(OmegaConf.from_dotlist([f"value={text}"]), resolve=True)
        return read["value"] if isinstance(read, dict) else read


def resolved(configuration: DictConfig) -> Any:
    """A configuration of OmegaConf as an object of its dataclass, with what ``${…}`` refers to.

    Raises:
        UserError: something in it cannot be resolved; names the key.
    """
    written = OmegaConf.to_container(configuration, resolve=False)
    assert isinstance(written, dict)
    for name, value in flattened(written):
        if is_reference(value):
            with reading(f"{name}={shown(value)}", "give the value itself"):
                OmegaConf.to_container(OmegaConf.create({"value": OmegaConf.select(configuration, name)}), resolve=True)
    return OmegaConf.to_object(configuration)


def read_preset(preset: str, method_name: str, folder: Path | None) -> list[tuple[str, Any]]:
    """A preset's dotted keys and values: those of all methods, then those of its section ``methods.NAME``.

    Args:
        preset: name of a file in the folder without its ending, or path of a YAML file.
        method_name: selects the section of a method.
        folder: of the presets that have names.

    Raises:
        UserError: there is no such file, or it does not hold keys and values; names the file and the line.
    """
    path = _preset_path(preset, folder)
    where = f"preset={shown(preset)}: {shown(path)}"
    with reading(where, "correct the file"):
        with path.open("rb") as stream:
            data = stream.read(MAX_PRESET_BYTES + 1)
        if len(data) > MAX_PRESET_BYTES:
            raise _Unreadable("it is larger than 1 MiB, so it cannot be a preset")
        content = OmegaConf.to_container(OmegaConf.load(StringIO(data.decode("utf-8-sig"))))
    # an empty file is a preset without keys
    if not isinstance(content, dict):
        raise UserError(f"{where} must contain keys and values, such as training.batch: 32, not {_described(content)}")
    sections = content.pop("methods", None)
    if sections is None:
        sections = {}
    own = sections.get(method_name) if isinstance(sections, dict) else sections
    if not isinstance(sections, dict) or not isinstance(own, dict | None):
        place = f"methods.{method_name}" if isinstance(sections, dict) else "methods"
        raise UserError(f"{where}: {place} must contain keys and values, not {_described(own)}: correct the file")
    return list(flattened(content)) + list(flattened(own or {}))


def flattened(tree: Mapping[Any, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys and values of nested mappings; an empty mapping below the top is itself a value."""
    for name, value in tree.items():
        if isinstance(value, Mapping) and value:
            yield from flattened(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def is_reference(value: Any) -> bool:
    """Whether OmegaConf replaces something in a value by what it refers to: ``${other.key}``, ``${oc.env:NAME}``."""
    if isinstance(value, list):
        return any(map(is_reference, value))
    return isinstance(value, str) and "${" in value


def _preset_path(preset: str, folder: Path | None) -> Path:
    if preset.endswith((".yaml", ".yml")):
        path = Path(preset)
    elif folder is not None:
        path = folder / f"{preset}.yaml"
    else:
        raise UserError(f"preset={shown(preset)}: there is no folder of presets here: give the path of a YAML file")
    with reading(f"preset={shown(preset)}", "give the name of a preset or the path of a YAML file"):
        found = path.is_file()
    if not found:
        names = sorted(file.stem for file in folder.glob("*.yaml")) if folder and folder.is_dir() else []
        what = "not a file" if path.exists() else "missing"
        raise UserError(
            f"preset={shown(preset)}: {shown(path)} is {what}: give the path of a YAML file, or one of these presets:"
            f" {', '.join(names) or 'none'}"
        )
    return path


def _described(content: Any) -> str:
    if isinstance(content, list):
        return "a list"
    return "nothing" if content is None else f"the value {shown(content)}"


def _reason(error: Exception) -> str:
    """What a library's error says, in one line, with the line of the file and without names of classes."""
    match error:
        case yaml.MarkedYAMLError():
            mark = error.problem_mark or error.context_mark
            where = f"line {mark.line + 1}: " if mark and mark.line else ""
            problem = error.problem or error.context or "it cannot be read"
            return f"{where}not valid YAML, {problem.rstrip('.')}"
        case yaml.YAMLError():
            return "not valid YAML, it holds a character that is not allowed there"
        case UnicodeError():
            return "not text in UTF-8"
        case RecursionError() | MemoryError():
            return "it is nested too deeply, or too large"
        case OSError():
            return f"it cannot be read ({error.strerror or 'error of the system'})"
        case InterpolationResolutionError() | GrammarParseError():
            reason = _LIBRARY_PREFIX.sub("", str(error)).strip().splitlines()
            if not reason or _INTERNAL.search(reason[0]):
                return "what ${…} refers to is nothing that this key can be"
            return f"what ${{…}} refers to cannot be found ({reason[0]})"
        case OmegaConfBaseException():
            return "it holds something other than text, numbers, true, false and lists"
        case ValueError() if "digits" in str(error):
            return "it has a number with too many digits"
        case _Unreadable():
            return str(error)
        case _:
            return "it cannot be read"
