"""Read the factors of a data frame that R saved, without R: python examples/r_data.py FILE.rda

Only what such a file needs of R's serialisation format ("XDR", version 2): see "Serialization Formats" in "R Internals".
"""

from __future__ import annotations

import lzma
import struct
import sys
import zlib
from pathlib import Path
from typing import Any

HAS_ATTRIBUTES, HAS_TAG = 0x200, 0x400
SYMBOL, PAIR_LIST, STRING, INTEGERS, REALS, STRINGS, LIST = 1, 2, 9, 13, 14, 16, 19
REFERENCE, NOTHING = 255, 254


class Reader:
    """Items of the format, in order; vectors with attributes come as (values, attributes)."""

    def __init__(self, data: bytes) -> None:
        if not data.startswith(b"RDX2\nX\n"):
            raise SystemExit("not a file that R's save() wrote, in binary and unpacked")
        self.data, self.at, self.symbols = data, 7 + 12, []  # the head, and three version numbers

    def take(self, form: str, count: int = 1) -> tuple[Any, ...]:
        layout = struct.Struct(f">{count}{form}")
        self.at += layout.size
        return layout.unpack_from(self.data, self.at - layout.size)

    def item(self) -> Any:
        (flags,) = self.take("i")
        kind = flags & 0xFF
        if kind == NOTHING:
            return None
        if kind == REFERENCE:
            return self.symbols[(flags >> 8) - 1]
        if kind == SYMBOL:
            self.symbols.append(self.item())
            return self.symbols[-1]
        if kind == PAIR_LIST:
            tag = self.item() if flags & HAS_TAG else None
            return {tag: self.item(), **(self.item() or {})}
        (count,) = self.take("i")
        if kind == STRING:
            return None if count < 0 else self.take("s", count)[0].decode("utf-8")
        if kind in (INTEGERS, REALS):
            values = list(self.take("i" if kind == INTEGERS else "d", count))
        elif kind in (STRINGS, LIST):
            values = [self.item() for _ in range(count)]
        else:
            raise SystemExit(f"R's type {kind} is more than this reader knows")
        return (values, self.item()) if flags & HAS_ATTRIBUTES else values


def character_vectors(database: bytes) -> list[list[str]]:
    """All objects of a lazy-load database (.rdb) whose objects are vectors of strings, as those of version 3 are written."""
    found, rest = [], database
    while rest:  # four bytes of the size, and a zlib stream
        unpacked = zlib.decompressobj()
        data, rest = unpacked.decompress(rest[4:]), unpacked.unused_data
        (length,) = struct.unpack_from(">i", data, 14)  # of the name of an encoding, after the three version numbers
        values = Reader(b"RDX2\n" + data[:14] + data[18 + length :]).item()
        found.append(values if isinstance(values, list) else values[0])
    return found


def factors(data: bytes) -> list[list[str]]:
    """The columns of the first object in the file: a data frame whose columns are all factors."""
    (columns, _), *_ = Reader(data).item().values()
    return [[attributes["levels"][i - 1] for i in values] for values, attributes in columns]


if __name__ == "__main__":
    table = factors(lzma.decompress(Path(sys.argv[1]).read_bytes()))
    print(f"{len(table)} columns of {len(table[0])} rows; the last one begins with {table[-1][:5]}")
