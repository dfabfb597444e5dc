"""Seeded wrong input: texts, JSON values, numbers, and changes of bytes and of JSON documents."""

import json
from collections.abc import Iterator
from random import Random
from typing import Any

TEXTS = (
    "", " ", "\n", "a\nb", "\t", "\r", "\x1b[31mred\x1b[0m", "\x7f", "\x00", "\udcff", "\ud800", "\u202eabc",
    "ａ", "١٢", "é", "😀", "null", "~", "true", "false", "yes", "no", "on", "nan", ".nan", "inf", "-inf", ".inf",
    "none", "None", "NaN", "0", "-0", "-1", "1", "2", "3", "7", "+3", "1.5", "-0.5", "1e3", "1e-3", "1e400",
    "1e-400", "1e308", "5e-324", "010", "0x10", "0b1", "0o7", "1_000", "1:30", "1,5", "1 2", "12abc", "2024-01-01", "½",
    "2147483647", "2147483648", "4294967296", "9223372036854775807", "9223372036854775808", "18446744073709551616",
    "9" * 30, "9" * 5000, "0x" + "f" * 40,
    "[]", "[1]", "[1,2]", "[0]", "[-1]", "[1.5]", "[true]", "[null]", "[[1]]", "[{}]", "[a]", "[1,", "]", "[,]",
    "[1e400]", "[" * 2000, "[" * 2000 + "]" * 2000, "[" + "1," * 3000 + "1]", "{}", "{a: 1}", "{a", "}", "{1: 2, 1: 3}",
    "'", '"', "'a'", '"3"', "''", "@", "`", "%", "%TAG", "!", "!!int x", "!!python/object:os.system",
    "!!binary x", "!!set {a}", "&a", "*a", "&a [*a]", "<<: 1", "? a", "- 1", "#", "# x", "|", ">", "|\n a",
    "---", "--- 1\n--- 2", "=", "==", "a=b", "${", "${}", "${x}", "${run.dir}", "${training.batch}",
    "${oc.env:NOWHERE}", "${oc.env:HOME}", "${a:b}", "${${x}}", "$", "${oc.decode:1}", "\\${x}", "a" * 300,
    "a" * 5000, "/", "//", ".", "..", "/dev/null/x", "~", "~/x", "~nobody/x", "*", "-", "--", "-h", "http://",
    "http://[", "s3://", "file://", "file:///nowhere", "gs:///", "ftp://x/y", "http://127.0.0.1:1/x", "con", "a/b/c",
)  # fmt: skip

JSON_VALUES: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2, 1.5, -0.0, 1e308, 10**30, 2**31, 2**63, -(2**63), "", "a", "a\nb",
    "\x1b[31m", "\ud800", "../../x", "/", "shard-000000.tar", "null", "0", "é", "x" * 3000, [], [0], [1, 2],
    [None], ["a"], [[]], [{}], [1.5], [-1], [10**30], [True], list(range(300)), {}, {"a": 1}, {"": {}},
    {"a": {"b": [{}]}},
)  # fmt: skip

# as JSON may be written, but Python's json does not write it
RAW_JSON = (
    b"", b" ", b"null", b"[]", b"{}", b"0", b'"x"', b"NaN", b"[NaN]", b"{", b"[", b"}", b'{"a": 1, "a": 2}',
    b'{"a": 1}{}', b"\xff\xfe{}", b"\xef\xbb\xbf{}", b"\x00", b"\x89PNG\r\n\x1a\n", b"[" * 100_000,
    b"[" * 5000 + b"]" * 5000, b"9" * 5000, b"1e999", b"-", b'{"a": 1e999}', b"'a'", b"{a: 1}", b'{"step": 1}',
    b"\n\n\n", b"{}\n{}\n",
)  # fmt: skip


def wrong_text(random: Random) -> str:
    """A text that is probably not what is asked for; now and then two of them in one."""
    text = random.choice(TEXTS)
    return text if random.random() < 0.85 else text + random.choice(TEXTS)


def wrong_argument(random: Random) -> str:
    """The same, as far as it can be an argument or a variable: without NUL, and of bytes in UTF-8."""
    return "".join(
        c for c in wrong_text(random) if c != "\0" and not "\ud800" <= c < "\udc80" and not "\udcff" < c < "\ue000"
    )


def changed_bytes(random: Random, content: bytes) -> bytes:
    """Bytes with one to three changes: flipped, cut off, repeated, removed or inserted."""
    data = bytearray(content)
    for _ in range(random.randint(1, 3)):
        place = random.randrange(len(data) + 1)
        match random.choice(("flip", "flip", "flip", "cut", "repeat", "remove", "insert", "zero")):
            case "flip" if data:
                data[place % len(data)] ^= 1 << random.randrange(8)
            case "cut":
                del data[place:]
            case "repeat":
                data[place:place] = data[max(0, place - random.randint(1, 64)) : place]
            case "remove":
                del data[place : place + random.randint(1, 64)]
            case "insert":
                data[place:place] = random.randbytes(random.randint(1, 16))
            case "zero":
                end = min(len(data), place + random.randint(1, 32))
                data[place:end] = bytes(end - place)
    return bytes(data)


def changed_json(random: Random, content: bytes) -> bytes:
    """A JSON document with one value replaced, removed, renamed or repeated; or other bytes."""
    kind = random.random()
    if kind < 0.15:
        return random.choice(RAW_JSON)
    if kind < 0.25:
        return changed_bytes(random, content)
    document = json.loads(content)
    for _ in range(1 if random.random() < 0.8 else 2):
        document = _changed(random, document)
    return json.dumps(document).encode()


def _changed(random: Random, document: Any) -> Any:
    places = list(_places(document))
    if not places or random.random() < 0.03:
        return random.choice(JSON_VALUES)
    parent, key = random.choice(places)
    match random.choice(("replace", "replace", "replace", "near", "near", "remove", "rename", "repeat")):
        case "remove":
            del parent[key]
        case "rename" if isinstance(parent, dict):
            parent[random.choice(TEXTS[:20])] = parent.pop(key)
        case "repeat" if isinstance(parent, list):
            parent.insert(key, parent[key])
        case "near":
            parent[key] = _near(random, parent[key])
        case _:
            parent[key] = random.choice(JSON_VALUES)
    return document


def _near(random: Random, value: Any) -> Any:
    """A value of the same type, and yet another one."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return random.choice((value + 1, value - 1, -value, 0, value * 2, value + 0.5, str(value)))
    if isinstance(value, float):
        return random.choice((-value, 0.0, value * 1e300, str(value)))
    if isinstance(value, str):
        return random.choice((value[:-1], value + "x", value.upper(), value + "\n", wrong_text(random)))
    if isinstance(value, list):
        return value[:-1] if random.random() < 0.5 else value + value
    return [value]


def _places(node: Any) -> Iterator[tuple[Any, Any]]:
    """Every (container, key) of a document."""
    entries = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in list(entries)[:300]:
        yield node, key
        yield from _places(value)
