"""The rooms of the package: imports between them run one way, none is too large, and no file name is used twice."""

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from itertools import pairwise
from pathlib import Path

import pytest

from launching import ROOT

PACKAGE = ROOT / "platform" / "latentscale"

# from what a training step reads down to the files: a room may import the rooms after it, and never one before it
DATA_ROOMS = ("data", "building", "sources", "containers", "shards", "storage", "decoding")
# what else the data rooms may import, besides modules at the top of the package
BELOW_DATA_ROOMS = {"latents"}
LARGEST_SHARE = 0.15
# the same thing in each room
SHARED_FILE_NAMES = {"__init__.py", "registry.py"}


def modules(package: Path) -> dict[str, Path]:
    """Every module of a package by its dotted name."""
    found = {}
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imported(module: str, path: Path) -> Iterator[str]:
    """The dotted names that a module imports anywhere, also within functions and for type checking only."""
    package = module.split(".") if path.name == "__init__.py" else module.split(".")[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*parents, *([node.module] if node.module else [])])
            # `from package import module` imports the module
            yield from (f"{base}.{name.name}" for name in node.names)


def room_imports(package: Path) -> dict[str, dict[str, str]]:
    """For each room the rooms that it imports, each with one place where it does; modules at the top are rooms too."""

    def room(name: str) -> str:
        return name.split(".")[1] if "." in name else "__init__"

    found: dict[str, dict[str, str]] = {}
    known = modules(package)
    for module, path in known.items():
        here = found.setdefault(room(module), {})
        for name in imported(module, path):
            # the last part may be a function or class
            target = next((part for part in (name, name.rpartition(".")[0]) if part in known), None)
            if target is not None and room(target) != room(module):
                here.setdefault(room(target), f"{path.relative_to(package.parent)} imports {target}")
    return found


def refuse_cycles(imports: dict[str, dict[str, str]]) -> None:
    try:
        TopologicalSorter(imports).prepare()
    except CycleError as error:
        cycle = error.args[1][::-1]
        raise AssertionError("; ".join(imports[a][b] for a, b in pairwise(cycle))) from None


def lines(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines())


def test_no_imports_between_rooms_form_a_cycle() -> None:
    refuse_cycles(room_imports(PACKAGE))


@pytest.mark.slow
def test_the_data_rooms_import_only_what_is_below_them() -> None:
    imports = room_imports(PACKAGE)
    top = {path.stem for path in PACKAGE.glob("*.py")}
    for place, room in enumerate(DATA_ROOMS):
        allowed = {*DATA_ROOMS[place + 1 :], *BELOW_DATA_ROOMS, *top}
        wrong = [where for target, where in imports[room].items() if target not in allowed]
        assert not wrong, wrong
    # a module at the top that imports a room would let its importers reach that room
    for name in top & {target for room in DATA_ROOMS for target in imports[room]}:
        assert imports[name].keys() <= top, imports[name]


def test_no_room_holds_more_than_its_share_of_the_lines() -> None:
    total = sum(map(lines, PACKAGE.rglob("*.py")))
    for room in (path for path in PACKAGE.iterdir() if path.is_dir()):
        share = sum(map(lines, room.rglob("*.py"))) / total
        assert share <= LARGEST_SHARE, f"{room.name} holds {share:.1%} of all lines"


def test_every_data_room_says_what_it_is_for() -> None:
    for room in DATA_ROOMS:
        assert ast.get_docstring(ast.parse((PACKAGE / room / "__init__.py").read_text(encoding="utf-8")))


def test_no_two_files_of_different_rooms_share_a_name() -> None:
    places: dict[str, list[str]] = {}
    for path in PACKAGE.rglob("*.py"):
        places.setdefault(path.name, []).append(path.relative_to(PACKAGE).parts[0])
    shared = {name: rooms for name, rooms in places.items() if len(rooms) > 1 and name not in SHARED_FILE_NAMES}
    assert not shared


@pytest.mark.parametrize("line", ["from a.upper import thing", "import a.upper.thing", "from ..upper import thing"])
def test_a_cycle_between_rooms_is_found_wherever_it_is_written(line: str, tmp_path: Path) -> None:
    for name, text in {
        "a/__init__.py": "",
        "a/upper/__init__.py": "",
        "a/upper/thing.py": "from a.lower.other import value\n",
        "a/lower/__init__.py": "",
        "a/lower/other.py": f"value = 1\n\n\ndef late():\n    {line}\n",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    with pytest.raises(AssertionError, match=r"lower/other\.py imports a\.upper"):
        refuse_cycles(room_imports(tmp_path / "a"))
