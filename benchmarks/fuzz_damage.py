"""Ways in which a file comes to be damaged or hostile."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.random import Generator

CANARY = 77
"""The value of every pixel of the file outside the archive, which no reader may come to."""


@dataclass(frozen=True)
class Outside:
    """What hostile files point to.

    Attributes:
        file: A GeoTIFF outside the archive.
        url: An address of which requests are counted.
    """

    file: Path
    url: str


Damage = Callable[[bytes, Generator, Outside], bytes]


def _flip(content: bytes, rng: Generator, outside: Outside) -> bytes:
    changed = bytearray(content)
    for at in rng.integers(0, max(1, len(changed)), rng.integers(1, 9)) if changed else ():
        changed[at] ^= 1 << int(rng.integers(8))
    return bytes(changed)


def _flip_header(content: bytes, rng: Generator, outside: Outside) -> bytes:
    return _flip(content[:512], rng, outside) + content[512:]


def _largest(content: bytes, rng: Generator, outside: Outside) -> bytes:
    at = int(rng.integers(0, max(1, min(len(content), 1024) - 4)))
    return content[:at] + b"\xff\xff\xff\x7f" + content[at + 4 :]


def _cut(content: bytes, rng: Generator, outside: Outside) -> bytes:
    return content[: int(rng.integers(0, max(1, len(content))))]


def _zeros(content: bytes, rng: Generator, outside: Outside) -> bytes:
    at = int(rng.integers(0, max(1, len(content))))
    return content[:at] + bytes(min(512, len(content) - at)) + content[at + 512 :]


def _noise(content: bytes, rng: Generator, outside: Outside) -> bytes:
    return rng.bytes(int(rng.integers(1, 4096)))


def _twice(content: bytes, rng: Generator, outside: Outside) -> bytes:
    return content + content


def _vrt(source: str) -> bytes:
    return (
        '<VRTDataset rasterXSize="32" rasterYSize="32"><VRTRasterBand dataType="UInt16" band="1"><SimpleSource>'
        f'<SourceFilename relativeToVRT="0">{source}</SourceFilename><SourceBand>1</SourceBand></SimpleSource>'
        "</VRTRasterBand></VRTDataset>"
    ).encode()


def _bomb(content: bytes, rng: Generator, outside: Outside) -> bytes:
    """A TIFF of one strip that claims 100,000 pixels a side."""
    tags = [(256, 4, 1, 100_000), (257, 4, 1, 100_000), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1)]
    tags += [(273, 4, 1, 8), (277, 3, 1, 1), (278, 4, 1, 100_000), (279, 4, 1, 16)]
    return (
        b"II*\0"
        + struct.pack("<I", 8)
        + struct.pack("<H", len(tags))
        + b"".join(struct.pack("<HHII", *t) for t in tags)
    )


DAMAGES: dict[str, Damage] = {
    "flipped bits": _flip,
    "flipped bits at the beginning": _flip_header,
    "largest number": _largest,
    "cut": _cut,
    "zeros": _zeros,
    "noise": _noise,
    "twice": _twice,
    "empty": lambda content, rng, outside: b"",
    "HTML": lambda content, rng, outside: b"<!DOCTYPE html><html><body>403 Forbidden</body></html>",
    "PostScript": lambda content, rng, outside: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n",
    "VRT of a file": lambda content, rng, outside: _vrt(str(outside.file)),
    "VRT of an address": lambda content, rng, outside: _vrt(f"/vsicurl/{outside.url}/a.tif"),
    "WMS": lambda content, rng, outside: (
        f'<GDAL_WMS><Service name="TMS"><ServerUrl>{outside.url}/${{z}}</ServerUrl></Service><DataWindow>'
        "<SizeX>32</SizeX><SizeY>32</SizeY></DataWindow></GDAL_WMS>"
    ).encode(),
    "TIFF bomb": _bomb,
    "nested JSON": lambda content, rng, outside: b"[" * 100_000,
}
"""By name: from the bytes of a file to those that stand in its place."""


def damage(content: bytes, rng: Generator, outside: Outside) -> tuple[str, bytes]:
    """Damage a file in one of the ways, chosen at random; gives the way's name and the new bytes."""
    name = list(DAMAGES)[int(rng.integers(len(DAMAGES)))]
    return name, DAMAGES[name](content, rng, outside)


def is_canary(pixels: np.ndarray) -> bool:
    """Whether pixels are those of the file outside."""
    return bool(pixels.size) and bool((pixels == CANARY).all())
