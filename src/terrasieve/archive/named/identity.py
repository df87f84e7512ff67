"""What somebody has named: what it is taken for and why, how it is opened, and the command that comes next."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass, replace
from pathlib import Path

from terrasieve.archive.archive_options import ArchiveOptions
from terrasieve.archive.named.proposals import UnnamedSensorError
from terrasieve.archive.opening import recognise
from terrasieve.archive.overview import spaced_evenly
from terrasieve.archive.protocol import Archive

_SHAPES = 256
"""Samples whose sizes are compared."""
_USUAL_LOSS = 0.01
"""Share of samples that may be lost before ``index`` and ``pack`` stop."""


@dataclass(frozen=True)
class Identity:
    """What a name stands for.

    Attributes:
        said: What it is, how sure that is and why, in a sentence or two.
        options: Those with which it is opened: the ones given, and what files make likely where these say too little.
        guessed: Whether there is such a guess, which somebody has to confirm.
    """

    said: str
    options: ArchiveOptions
    guessed: bool = False


def identify(data: str, options: ArchiveOptions) -> Identity:
    """What a name stands for; pixels are looked at only where a sensor has to be guessed.

    Args:
        data: As for :func:`terrasieve.archive.opening.open_archive`.
        options: What else is said of it.

    Raises:
        ArchiveError: Nothing is there that can be read, or no sensor that is known fits it.
        ConfigError: An option is malformed, or none of what is opened.
    """
    try:
        spec = options.spec(data)
    except UnnamedSensorError as error:
        guess = error.proposal
        if not guess.sensors:
            raise
        tile, match = options.tile or guess.tile, options.match or guess.match
        likely = replace(options, sensors=guess.sensors, patterns=guess.patterns, tile=tile, match=match)
        said = f"{data} holds {guess.what}. Nothing says of which sensor; a guess from the headers, to be confirmed: "
        return Identity(f"{said}{'; '.join(guess.reasons)}.", likely, guessed=True)
    if (recognised := recognition_line(data, options)) is not None:
        return Identity(recognised, options)
    what = "a store or catalogue that says itself what it holds" if spec is None else f"the layout {spec.layout}"
    return Identity(f"{data} is opened as {what}{', as --sensor says' if options.sensors else ''}.", options)


def recognition_line(data: str, options: ArchiveOptions) -> str | None:
    """Which layout a folder is taken to have, how sure that is, and why; None where nothing had to be recognised.

    Args:
        data: A name that can be opened.
        options: What else is said of it.
    """
    if options.layout is not None:
        return f"Layout: {options.layout}, as --layout says."
    seen = [] if options.sensors or not Path(data).exists() else recognise(Path(data))
    if not seen:
        return None
    best, *others = seen
    beside = ", ".join(f"{other.spec.layout} {other.confidence:.0%}" for other in others)
    about = best.spec.data_set
    name = f"{about.title} ({best.spec.layout})" if about else best.spec.layout
    return (
        f"Layout: {name}, {best.confidence:.0%} sure: {best.evidence}."
        + (f" Also possible: {beside}." if beside else "")
        + " --layout overrides it."
    )


def packing_command(data: str, archive: Archive, options: ArchiveOptions) -> str:
    """The command that makes of an archive what a run learns from: packs it, or lists it where sizes of samples differ.

    Args:
        data: The name as it was given.
        archive: What it opens.
        options: Those with which it was opened.

    Returns:
        One line for a shell. More than one per cent of bad samples is allowed where more are known to be bad.
    """
    shapes = {
        key: {archive.shape(index, key) for index in spaced_evenly(len(archive), _SHAPES)} for key in archive.sensors
    }
    alike = all(len(sizes) == 1 for sizes in shapes.values())
    verb, ending = ("pack", ".zarr") if alike else ("index", ".parquet")
    lost = sum(one.samples for one in archive.rejected)
    share = lost / max(1, lost + len(archive))
    # Rounded up, so that it is not exceeded by the last of them.
    allowed = ["--max-bad", f"{min(1.0, int(share * 100 + 1) / 100):g}"] if share > _USUAL_LOSS else []
    return shlex.join(["terrasieve", verb, data, *options.words(), *allowed, "--out", free_name(data, ending)])


def free_name(data: str, ending: str) -> str:
    """A name for what is made of an archive, in the folder where the command is given.

    Args:
        data: The name of the archive.
        ending: Suffix of the new name.
    """
    place = Path(data if "://" in data else Path(data).resolve())
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", place.name.rpartition("/")[2])
    stem = re.sub(r"(?i)(\.safe|\.zip|\.zarr|\.nc|\.tiff?|\.png|\.jpe?g|\.jp2|\.ya?ml|\.csv|\.parquet)+$", "", plain)
    names = (f"{stem.strip('-.') or 'archive'}{part}{ending}" for part in ("", *(f"-{n}" for n in range(2, 1000))))
    return next((name for name in names if not Path(name).exists()), f"archive{ending}")
