"""What users can cause. Each message names the thing, the value and the fix."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import ClassVar


class TerrasieveError(Exception):
    """Base of all errors that a user can mend; the command line prints it without a traceback.

    Attributes:
        exit_code: What the command line ends with.
        shared: Whether all processes of a run raise it alike, so that the first one says it for all.
    """

    exit_code: ClassVar[int] = 1
    shared: ClassVar[bool] = False


class ConfigError(TerrasieveError):
    """A setting is unknown, has the wrong type or contradicts another."""

    shared = True


class WorldError(ConfigError):
    """The processes of a run do not fit together, or their launcher contradicts itself or what was asked for."""


class DeviceError(ConfigError):
    """A device is not there."""

    shared = False


class BandError(TerrasieveError):
    """A band or sensor is wrong, missing, doubled or in another order than stated."""


class ArchiveError(TerrasieveError):
    """An archive cannot be opened or does not hold what its layout promises."""


class SampleError(TerrasieveError):
    """One sample cannot be used; it is quarantined with this message as the reason."""


class TooManyBadSamplesError(ArchiveError):
    """The share of quarantined samples passed the limit that the user set."""


class CurationError(TerrasieveError):
    """Vectors cannot be clustered or sampled, or a file of vectors, a selection or a tree is not what it should be."""


class PartsError(TerrasieveError):
    """Work in parts cannot go on or be merged: parts are missing, or the plan is of other work."""


class WriteError(TerrasieveError):
    """A file cannot be written: the disk is full or read-only, or its name or folder will not do."""


class RemoteError(TerrasieveError):
    """A server that holds objects cannot be reached, refuses, or drops the connection however often it is tried."""


class CheckpointError(TerrasieveError):
    """A checkpoint or exported encoder is damaged, foreign or of another configuration."""


class TrainingError(TerrasieveError):
    """Training stopped for a reason that going on would not mend."""


class StoppedError(TrainingError):
    """The run was asked to stop, and its checkpoint is written."""

    shared = True


class RequeueError(StoppedError):
    """The run was asked to make room and to be started again; 75 is what systems call a temporary failure."""

    exit_code = 75


class CollapseError(TrainingError):
    """The embedding lost its variety: every input is mapped to (nearly) the same vector."""

    shared = True


class NonFiniteError(TrainingError):
    """The loss or a gradient became NaN or infinite."""

    shared = True


def nearest(name: str, known: Iterable[str]) -> str:
    """Say what was probably meant.

    Args:
        name: The name that the user wrote, which is not among the known ones.
        known: Names that could have been written, in any order.

    Returns:
        `` Did you mean 'x'?`` with a leading space, or the list of what is known
        when nothing is close.
    """
    options = sorted(set(known))
    # Of closeness 0 to 1; below 0.6 names share a few letters only, and a guess would mislead.
    close = difflib.get_close_matches(name, options, n=1, cutoff=0.6)
    if close:
        return f" Did you mean {close[0]!r}?"
    return f" Known: {', '.join(options)}." if options else ""
