"""What libjpeg warns of in a JPEG file: whether its pixels are lost, with simplejpeg or without it.

Pillow decodes files with warnings without a word, and simplejpeg tells the last warning alone. Bytes that no code uses
harm no pixel; other warnings mean that pixels are lost. Where simplejpeg does not tell which it is, or is not
installed, the Huffman codes are followed here (ITU-T T.81, Annexes B, F and G), some hundred times as slowly.
"""

import re
from dataclasses import dataclass, field

BAD_CODE = "Corrupt JPEG data: bad Huffman code"
CUT_SEGMENT = "Corrupt JPEG data: premature end of data segment"
CUT_FILE = "Premature end of JPEG file"
BAD_PROGRESSION = "Inconsistent progression sequence"
BAD_RESTART = "Corrupt JPEG data: found another marker instead of a restart marker"

LOST_PLACE = "Corrupt JPEG data: its codes end in the middle of others"

UNREPORTED_BYTES = 8
"""libjpeg-turbo does not warn of extra bytes that are in its buffer of 64 bits when a scan ends."""

_HARMLESS = re.compile(r"Corrupt JPEG data: (\d+) extraneous bytes before marker|.*JFIF revision")
_FAST_BYTES = 512
_SOI, _EOI, _SOS, _DHT, _DRI, _TEM = 0xD8, 0xD9, 0xDA, 0xC4, 0xDD, 0x01
_SEQUENTIAL, _PROGRESSIVE = (0xC0, 0xC1), 0xC2
_OTHER_FRAMES = (0xC3, *range(0xC5, 0xC8), *range(0xC9, 0xCC), *range(0xCD, 0xD0))
_RESTARTS = range(0xD0, 0xD8)
_GREY_SPACES = ("Gray", "YCbCr")


class _Warned(Exception):
    """A warning after which pixels are lost."""


def is_harmless(warning: str) -> bool:
    """Whether every pixel of a file with this warning may be whole."""
    return _HARMLESS.match(warning) is not None


def extra_bytes(warning: str) -> int:
    """The number of extra bytes that a warning states, 0 if it is another."""
    found = _HARMLESS.match(warning)
    return int(found[1] or 0) if found else 0


def reported_warning(data: bytes) -> str | None:
    """The last warning or error of simplejpeg about a file, empty if it has none.

    Args:
        data: the file's bytes; grey or colour, not CMYK.

    Returns:
        None if simplejpeg is not installed or does not know the file's sampling.
    """
    try:
        import simplejpeg  # a build must give the same without it

        space = simplejpeg.decode_jpeg_header(data)[2]
    except (ImportError, ValueError):
        return None
    try:
        simplejpeg.decode_jpeg(data, "GRAY" if space in _GREY_SPACES else "RGB")
    except ValueError as error:
        return " ".join(str(error).split())
    return ""


def followed_warning(data: bytes) -> str:
    """The warning of libjpeg that means lost pixels, or that of most extra bytes; empty if there is none.

    Args:
        data: the file's bytes, which Pillow can decode.
    """
    try:
        return _Scanner(data).scan()
    except _Warned as warning:
        return str(warning)


@dataclass
class _Component:
    """A component: its sampling factors, and for each block of a progressive file which coefficients are not 0."""

    horizontal: int
    vertical: int
    across: int = 0
    nonzero: list[int] = field(default_factory=list)
    # of each coefficient of a progressive file, the lowest bit that is known; -1 before the first scan
    known: list[int] = field(default_factory=lambda: [-1] * 64)


@dataclass(frozen=True)
class _Scan:
    components: tuple[_Component, ...]
    dc: tuple[list[int], ...]
    ac: tuple[list[int], ...]
    start: int
    end: int
    high: int
    low: int


class _Scanner:
    """Follows a file's markers and Huffman codes, without computing a pixel."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._tables: dict[tuple[int, int], list[int]] = {}
        self._components: dict[int, _Component] = {}
        self._height = self._width = self._restart = 0
        self._progressive = False
        self._extra, self._most_extra = "", 0

    def scan(self) -> str:
        """The warning of most extra bytes; empty if there are none.

        Raises:
            _Warned: pixels are lost.
        """
        place = 2
        while True:
            marker, place = self._next_marker(place)
            if marker == _EOI or marker in _OTHER_FRAMES:
                # Pillow decides about files whose coding is not followed here
                return self._extra
            if marker in (_SOI, _TEM) or marker in _RESTARTS:
                continue
            length = int.from_bytes(self._data[place : place + 2])
            content = self._data[place + 2 : place + length]
            if length < 2 or len(content) != length - 2:
                raise _Warned(CUT_FILE)
            place += length
            if marker == _DHT:
                self._read_tables(content)
            elif marker == _DRI and len(content) == 2:
                self._restart = int.from_bytes(content)
            elif marker in (*_SEQUENTIAL, _PROGRESSIVE):
                self._read_frame(content, marker == _PROGRESSIVE)
            elif marker == _SOS:
                place = self._read_scan(content, place)

    def _next_marker(self, place: int) -> tuple[int, int]:
        """The next marker and the place after it; bytes before it are extra."""
        start = place
        while True:
            place = self._data.find(b"\xff", place)
            if place < 0:
                raise _Warned(CUT_FILE)
            first = place
            while self._data[place : place + 1] == b"\xff":
                place += 1
            if place >= len(self._data):
                raise _Warned(CUT_FILE)
            if self._data[place]:
                break
            place += 1
        if first > start:
            self._note_extra(first - start, self._data[place])
        return self._data[place], place + 1

    def _note_extra(self, count: int, marker: int) -> None:
        if count > self._most_extra:
            self._most_extra = count
            self._extra = f"Corrupt JPEG data: {count} extraneous bytes before marker 0x{marker:02x}"

    def _read_tables(self, content: bytes) -> None:
        while len(content) > 16:
            counts = content[1:17]
            symbols = content[17 : 17 + sum(counts)]
            # for the next 16 bits: the code's length and symbol, 0 for no code
            table: list[int] = []
            number = 0
            for length, count in enumerate(counts, 1):
                for symbol in symbols[number : number + count]:
                    table += [length << 8 | symbol] * (1 << 16 - length)
                number += count
            self._tables[content[0] >> 4, content[0] & 15] = (table + [0] * (1 << 16))[: 1 << 16]
            content = content[17 + sum(counts) :]

    def _read_frame(self, content: bytes, progressive: bool) -> None:
        self._progressive = progressive
        self._height, self._width = int.from_bytes(content[1:3]), int.from_bytes(content[3:5])
        parts = [content[start : start + 3] for start in range(6, len(content) - 2, 3)]
        self._components = {part[0]: _Component(part[1] >> 4 or 1, part[1] & 15 or 1) for part in parts}
        wide, high = self._largest()
        across, down = _ceil(self._width, 8 * wide), _ceil(self._height, 8 * high)
        for component in self._components.values():
            component.across = across * component.horizontal
            component.nonzero = [0] * (component.across * down * component.vertical if progressive else 0)

    def _largest(self) -> tuple[int, int]:
        every = self._components.values()
        return max((c.horizontal for c in every), default=1), max((c.vertical for c in every), default=1)

    def _read_scan(self, content: bytes, place: int) -> int:
        """Follow the codes of a scan; returns the place of the marker after it."""
        count = content[0] if content else 0
        pairs = (
            [(content[1 + 2 * n], content[2 + 2 * n]) for n in range(count)] if len(content) == 4 + 2 * count else []
        )
        if not pairs or any(name not in self._components for name, _ in pairs):
            raise _Warned("Invalid SOS parameters")
        empty = [0] * (1 << 16)
        scan = _Scan(
            tuple(self._components[name] for name, _ in pairs),
            tuple(self._tables.get((0, tables >> 4), empty) for _, tables in pairs),
            tuple(self._tables.get((1, tables & 15), empty) for _, tables in pairs),
            content[-3],
            content[-2],
            content[-1] >> 4,
            content[-1] & 15,
        )
        if self._progressive:
            self._check_progression(scan)
        units = self._units(scan)
        for number in range(_ceil(len(units), self._restart or len(units) or 1)):
            if number:
                expected = _RESTARTS[(number - 1) % 8]
                if self._data[place + 1] != expected:
                    raise _Warned(BAD_RESTART)
                place += 2
            end = self._end_of_segment(place)
            segment = self._data[place:end].replace(b"\xff\x00", b"\xff")
            size = self._restart or len(units)
            quiet = len(self._data) - place - _FAST_BYTES * len(units[0])
            used = self._follow(scan, segment, units[number * size : (number + 1) * size], quiet)
            if left := len(segment) - _ceil(used, 8):
                # encoders fill the last byte of codes with 1 (F.1.2.3): codes that end elsewhere have lost their place
                padding = (1 << -used % 8) - 1
                if left > UNREPORTED_BYTES and segment[used // 8] & padding != padding:
                    raise _Warned(LOST_PLACE)
                self._note_extra(left, self._data[end + 1])
            place = end
        return place

    def _check_progression(self, scan: _Scan) -> None:
        for component in scan.components:
            before = [max(bit, 0) for bit in component.known[scan.start : scan.end + 1]]
            if any(bit != scan.high for bit in before) or (scan.start and component.known[0] < 0):
                raise _Warned(BAD_PROGRESSION)
            component.known[scan.start : scan.end + 1] = [scan.low] * len(before)

    def _end_of_segment(self, place: int) -> int:
        """The place of the next marker."""
        while True:
            place = self._data.find(b"\xff", place)
            if place < 0 or place + 1 >= len(self._data):
                raise _Warned(CUT_FILE)
            if self._data[place + 1] == 0xFF:
                place += 1
            elif self._data[place + 1]:
                return place
            else:
                place += 2

    def _units(self, scan: _Scan) -> list[list[tuple[int, int]]]:
        """For each unit of a scan, its blocks: the component's number in the scan, and the block's number in it."""
        wide, high = self._largest()
        if len(scan.components) == 1:
            (one,) = scan.components
            across = _ceil(self._width * one.horizontal, 8 * wide)
            down = _ceil(self._height * one.vertical, 8 * high)
            return [[(0, row * one.across + column)] for row in range(down) for column in range(across)]
        across, down = _ceil(self._width, 8 * wide), _ceil(self._height, 8 * high)
        return [
            [
                (number, (row * c.vertical + y) * c.across + column * c.horizontal + x)
                for number, c in enumerate(scan.components)
                for y in range(c.vertical)
                for x in range(c.horizontal)
            ]
            for row in range(down)
            for column in range(across)
        ]

    def _follow(self, scan: _Scan, segment: bytes, units: list[list[tuple[int, int]]], quiet_bytes: int) -> int:
        """Follow the codes of a segment; returns the number of bits used."""
        bits = _Bits(segment, 0 if self._progressive else quiet_bytes)
        if not self._progressive:
            for unit in units:
                for number, _ in unit:
                    bits.skip(bits.symbol(scan.dc[number]))
                    bits.run(scan.ac[number], 1, 63)
        elif scan.start == 0:
            for unit in units:
                for number, _ in unit:
                    bits.skip(bits.symbol(scan.dc[number]) if scan.high == 0 else 1)
        else:
            blocks = [(scan.components[number], block) for unit in units for number, block in unit]
            follow = bits.first_pass if scan.high == 0 else bits.refinement
            run = 0
            for component, block in blocks:
                component.nonzero[block], run = follow(scan.ac[0], scan.start, scan.end, component.nonzero[block], run)
        bits.check()
        return bits.place


def _ceil(number: int, divisor: int) -> int:
    return -(-number // divisor)


class _Bits:
    """The bits of a segment; beyond its end they are 0.

    Args:
        segment: its bytes.
        quiet_bytes: up to here a bad code is taken as 0: far from the file's end, libjpeg-turbo does not warn of it.
    """

    def __init__(self, segment: bytes, quiet_bytes: int) -> None:
        self._padded, self._count = segment + bytes(64), 8 * len(segment)
        self._quiet_bits = 8 * quiet_bytes
        self.place = 0

    def check(self) -> None:
        """Raise _Warned if more bits were used than there are."""
        if self.place > self._count:
            raise _Warned(CUT_SEGMENT)

    def skip(self, count: int) -> None:
        self.place += count

    def take(self, count: int) -> int:
        first = self.place >> 3
        value = int.from_bytes(self._padded[first : first + 4]) << (self.place & 7) & 0xFFFFFFFF
        self.place += count
        return value >> 32 - count if count else 0

    def symbol(self, table: list[int]) -> int:
        """The symbol of the next code."""
        self.check()
        first = self.place >> 3
        found = table[int.from_bytes(self._padded[first : first + 3]) >> 8 - (self.place & 7) & 0xFFFF]
        if not found and self.place < self._quiet_bits:
            self.place += 17
            return 0
        if not found:
            raise _Warned(BAD_CODE if self.place + 16 <= self._count else CUT_SEGMENT)
        self.place += found >> 8
        return found & 0xFF

    def run(self, table: list[int], position: int, end: int) -> None:
        """The coefficients of a sequential block (T.81, F.2.2.2)."""
        while position <= end:
            symbol = self.symbol(table)
            zeros, size = symbol >> 4, symbol & 15
            if size:
                self.place += size
            elif zeros != 15:
                return
            position += zeros + 1

    def first_pass(self, table: list[int], position: int, end: int, nonzero: int, run: int) -> tuple[int, int]:
        """Which coefficients of a block are not 0 after its first scan, and how many blocks without any follow.

        T.81, G.1.2.2.
        """
        if run:
            return nonzero, run - 1
        while position <= end:
            symbol = self.symbol(table)
            zeros, size = symbol >> 4, symbol & 15
            if size:
                position += zeros
                self.place += size
                nonzero |= 1 << position
            elif zeros != 15:
                return nonzero, (1 << zeros) + self.take(zeros) - 1
            else:
                position += 15
            position += 1
        return nonzero, 0

    def refinement(self, table: list[int], position: int, end: int, nonzero: int, run: int) -> tuple[int, int]:
        """The same after a later scan, in which every coefficient that is not 0 has one bit more (G.1.2.3)."""
        before = nonzero
        while position <= end and not run:
            symbol = self.symbol(table)
            zeros, size = symbol >> 4, symbol & 15
            if not size and zeros != 15:
                run = (1 << zeros) + self.take(zeros)
                break
            if size > 1:
                raise _Warned(BAD_CODE)
            self.place += size
            while position <= end:
                if before >> position & 1:
                    self.place += 1
                elif zeros:
                    zeros -= 1
                else:
                    break
                position += 1
            if size and position <= end:
                nonzero |= 1 << position
            position += 1
        if run:
            # the rest of the block has no new coefficients
            self.place += (before >> position & (1 << max(end - position + 1, 0)) - 1).bit_count()
            return nonzero, run - 1
        return nonzero, 0
