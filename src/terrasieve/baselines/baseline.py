"""A baseline, ready to be measured: the encoder, and what a reader must know of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from terrasieve.models.backbone import Encoder

RGB = ("red", "green", "blue")


@dataclass(frozen=True)
class Facts:
    """What is known of a baseline before its file is opened.

    Attributes:
        bands: What its channels mean, in order: common names or band names of a sensor; None where nobody says.
        training: How it was trained, in one line.
        citation: The source to cite.
        licence: SPDX identifier of the weights' licence, None where none is known.
    """

    bands: tuple[str, ...] | None
    training: str
    citation: str
    licence: str | None = None


@dataclass(frozen=True)
class Baseline:
    """An encoder that is measured beside others.

    Attributes:
        name: Its name in tables.
        encoder: In eval mode, on the CPU.
        facts: What is known of it.
        sha256: Hash of the weights file; None for one without a file.
        notes: What was done to the file's content to load it, a line each.
    """

    name: str
    encoder: Encoder
    facts: Facts
    sha256: str | None = None
    notes: tuple[str, ...] = ()

    @property
    def channels(self) -> int:
        """Bands that the encoder takes."""
        return self.encoder.channels

    @property
    def bands(self) -> tuple[str, ...] | None:
        """What its channels mean, in order; None where nobody says."""
        return self.facts.bands

    def describe(self) -> str:
        """All of it as lines of text, for a report or a terminal."""
        bands = "unknown" if self.bands is None else ", ".join(self.bands)
        lines = [
            self.name,
            f"  trained   {self.facts.training}",
            f"  input     {self.channels} channel(s): {bands}",
            f"  output    {self.encoder.features} features",
            f"  source    {self.facts.citation}",
            f"  licence   {self.facts.licence or 'unknown'}",
            f"  sha256    {self.sha256 or 'no file'}",
        ]
        return "\n".join([*lines, *_noted(self.notes)])


def _noted(notes: Sequence[str]) -> list[str]:
    return [f"  note      {note}" for note in notes]
