"""What every archive is: samples by index, each a mapping from sensor to pixels."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Protocol, final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from terrasieve.archive.browsing import Browsable
from terrasieve.archive.folders import NotTaken
from terrasieve.archive.quality.limits import FlawError, Problem, Rejection
from terrasieve.archive.quality.suspicion import Suspicion
from terrasieve.errors import ArchiveError, BandError, nearest
from terrasieve.schema import Spec
from terrasieve.sensors import BandStatistics, Sensor


class Window(NamedTuple):
    """A rectangle of pixels of one sample: rows ``top:top+height``, columns ``left:left+width``."""

    top: int
    left: int
    height: int
    width: int


Reader = Callable[[int, Window | None], NDArray[Any]]
"""Reads some bands of one sensor of a sample: all of it, or a window."""


class Archive(Protocol):
    """Unlabelled or labelled samples that can be read by band and window.

    Implementations are cheap to pickle and safe to use in forked worker processes. They derive from
    :class:`BaseArchive`, or, where they change another archive, from
    :class:`~terrasieve.archive.derived.wrapper.WrapperArchive`.
    """

    @property
    def sensors(self) -> Mapping[str, Sensor]:
        """The sensors by key; the key is how callers ask for one, for example ``s2``."""

    @property
    def ids(self) -> NDArray[np.str_]:
        """One stable, unique name per sample, shape ``(n,)``; of variable width where there may be millions."""

    @property
    def source(self) -> Mapping[str, Any]:
        """Provenance as JSON-able values: ``layout``, ``root``, options, ``simulated``, ``fingerprint``."""

    @property
    def spec(self) -> Spec:
        """How the archive is opened again; of a selection of samples, the whole of which it is a part.

        Raises:
            ArchiveError: The archive cannot say how it is opened.
        """

    @property
    def rejected(self) -> tuple[Rejection, ...]:
        """What was found on opening and is not among the samples, with the reasons."""

    @property
    def not_taken(self) -> NotTaken:
        """What lies among the archive's files and is neither among the samples nor rejected."""

    @property
    def suspicions(self) -> tuple[Suspicion, ...] | None:
        """What may spoil a run on the samples, without the lists of ids; None where nobody has looked."""

    @property
    def statistics(self) -> Mapping[str, tuple[BandStatistics, ...]] | None:
        """Of every band by sensor key, over all samples, in the sensor's order; None where they are not measured."""

    @property
    def mapped(self) -> bool:
        """Whether threads read side by side: pixels lie in mapped files or on a server; others are decoded."""

    def __len__(self) -> int:
        """Number of samples."""

    def shape(self, index: int, sensor: str) -> tuple[int, int]:
        """Height and width of a sample's pixels for one sensor.

        Raises:
            BandError: The sensor is not in the archive.
            IndexError: The index is below 0, or not below ``len(self)``.
        """

    def read(
        self,
        index: int,
        sensor: str,
        bands: Sequence[str] | None = None,
        window: Window | None = None,
    ) -> NDArray[Any]:
        """Pixels of one sample.

        Args:
            index: 0 to ``len(self) - 1``.
            sensor: A key of ``sensors``.
            bands: Names in the order wanted, which may repeat; all bands when None.
            window: The part wanted; the whole sample when None.

        Returns:
            Array of shape ``(bands, height, width)`` in the type and unit of the product.

        Raises:
            BandError: The sensor or a band is not in the archive, or no band is named.
            IndexError: The index is below 0, or not below ``len(self)``.
            SampleError: The pixels cannot be read, or the window leaves the sample.
        """

    def view(
        self, index: int, sensor: str, bands: Sequence[str] | None = None, window: Window | None = None
    ) -> NDArray[Any]:
        """As :meth:`read`, but not to be changed: where files are mapped, nothing is copied."""

    def files(self, indices: NDArray[np.int64]) -> Iterable[str]:
        """The local files that the pixels of some samples are read from, in any order; none where there is no file.

        They are named by text: of a million files paths would take seconds to make.

        Args:
            indices: Samples, each 0 to ``len(self) - 1``.
        """

    def catalogue_columns(self, indices: NDArray[np.int64]) -> Mapping[str, pa.Array]:
        """Columns of a catalogue by which ``ArchiveSpec.open_listed`` opens samples from their rows; perhaps none.

        Args:
            indices: Samples, each 0 to ``len(self) - 1``.
        """

    def table(self) -> pa.Table:
        """One row a sample, in index order.

        Columns: ``id`` (string); ``geometry`` (WKB polygon in longitude and latitude, null where unknown);
        ``time`` (timestamp[us, UTC], null where unknown); ``label`` (string, null where unlabelled);
        ``split`` (string ``train``/``val``/``test``, null where none is published);
        ``crs`` (string such as ``EPSG:32632``); ``transform`` (list of six floats, the affine a-f);
        one ``asset:<sensor>`` string per sensor. Archives may add columns; ``location``, where there is one, is equal
        for samples that show one place at different times.
        """


class BaseArchive(Browsable, ABC):
    """What archives have in common: ``read`` and ``shape`` check what they are asked for, once and in one way.

    A subclass gives ``sensors``, ``ids``, ``source``, ``table``, ``_shape`` and ``_read``; it sets ``spec``, and of
    ``rejected``, ``suspicions`` and ``statistics`` what it knows. What they hold without that says that nothing was
    rejected, that nobody looked and that nothing was measured.
    """

    rejected: tuple[Rejection, ...] = ()
    suspicions: tuple[Suspicion, ...] | None = None
    statistics: Mapping[str, tuple[BandStatistics, ...]] | None = None

    _not_pickled: ClassVar[frozenset[str]] = frozenset({"ids", "_positions", "_bound"})
    """Attributes that are made again from the others when they are needed."""

    # Workers get a copy of the archive each; a million names would be most of what is sent.
    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name not in self._not_pickled}

    @property
    @abstractmethod
    def sensors(self) -> Mapping[str, Sensor]:
        """See ``Archive.sensors``."""

    @property
    @abstractmethod
    def ids(self) -> NDArray[np.str_]:
        """See ``Archive.ids``."""

    @property
    @abstractmethod
    def source(self) -> Mapping[str, Any]:
        """See ``Archive.source``."""

    @cached_property
    def spec(self) -> Spec:
        """See ``Archive.spec``."""
        raise ArchiveError(f"{type(self).__name__} cannot say how it is opened; a catalogue of it could not be used.")

    @property
    def not_taken(self) -> NotTaken:
        """See ``Archive.not_taken``; nothing, where nobody counts it."""
        return NotTaken()

    @property
    def mapped(self) -> bool:
        """See ``Archive.mapped``; False, unless a subclass maps files."""
        return False

    @abstractmethod
    def table(self) -> pa.Table:
        """See ``Archive.table``."""

    def catalogue_columns(self, indices: NDArray[np.int64]) -> Mapping[str, pa.Array]:
        """Columns of a catalogue by which ``ArchiveSpec.open_listed`` opens samples from their rows; none, as here.

        Args:
            indices: Samples, each 0 to ``len(self) - 1``.
        """
        return {}

    def __len__(self) -> int:
        return len(self.ids)

    def files(self, indices: NDArray[np.int64]) -> Iterable[str]:
        """See ``Archive.files``; none, unless a subclass reads from files."""
        return ()

    @final
    def shape(self, index: int, sensor: str) -> tuple[int, int]:
        """Height and width of a sample's pixels for one sensor; see ``Archive.shape``."""
        if (sensor, None) not in self._positions:
            self._resolve(sensor, None)
        # Negative positions are refused: counted from the end they would hide a mistake of the caller's.
        if not 0 <= index < len(self):
            raise IndexError(f"sample {index} of an archive of {len(self)} samples")
        return self._shape(index, sensor)

    @final
    def read(
        self, index: int, sensor: str, bands: Sequence[str] | None = None, window: Window | None = None
    ) -> NDArray[Any]:
        """Pixels of one sample; see ``Archive.read``. Fastest where ``bands`` is a tuple."""
        # Called once a sample: what can be, is looked up rather than worked out.
        if bands is not None and bands.__class__ is not tuple:
            bands = tuple(bands)
        try:
            reader = self._bound[sensor, bands]
        except KeyError:
            positions = self._positions.get((sensor, bands)) or self._resolve(sensor, bands)
            reader = self._bound[sensor, bands] = self._reader(sensor, positions)
        try:
            return reader(index, window)
        except MemoryError as error:
            raise FlawError(
                Problem.UNREADABLE,
                f"{self._place()}, {self._name(index, sensor)} of sensor {sensor!r} needs more memory than there is. "
                "Fetch the file again if its header is damaged, or cut it into smaller patches.",
            ) from error

    def view(
        self, index: int, sensor: str, bands: Sequence[str] | None = None, window: Window | None = None
    ) -> NDArray[Any]:
        """Pixels that are not to be changed; see ``Archive.view``."""
        return self.read(index, sensor, bands, window)

    @abstractmethod
    def _shape(self, index: int, sensor: str) -> tuple[int, int]:
        """Height and width of a sample that there is, for a sensor that there is."""

    @abstractmethod
    def _read(self, index: int, sensor: str, positions: tuple[int, ...], window: Window | None) -> NDArray[Any]:
        """Pixels of a sample that there is.

        Args:
            index: 0 to ``len(self) - 1``.
            sensor: A key of ``sensors``.
            positions: Of the bands wanted in the sensor, from 0; at least one.
            window: The part wanted, within the sample; all of it when None.

        Returns:
            Array of shape ``(len(positions), height, width)``, which the caller may change.
        """

    def _reader(self, sensor: str, positions: tuple[int, ...]) -> Reader:
        """A function that reads these bands of a sample that it checks, as it checks the window.

        A subclass gives one of its own only where calling ``_read`` would take as long as reading.
        """

        def read(index: int, window: Window | None) -> NDArray[Any]:
            if not 0 <= index < len(self):
                raise IndexError(f"sample {index} of an archive of {len(self)} samples")
            if window is not None:
                window = self._check_window(index, sensor, window)
            return self._read(index, sensor, positions, window)

        return read

    def _check_window(self, index: int, sensor: str, window: Window) -> Window:
        """The window, which may come as a plain tuple; an error where it leaves the sample."""
        height, width = self._shape(index, sensor)
        if leaves(window, height, width):
            raise window_error(window, height, width, self._name(index, sensor))
        return window if window.__class__ is Window else Window(*window)

    def _place(self) -> str:
        """Where the archive lies, as errors say it."""
        return source_place(self.source)

    def _name(self, index: int, sensor: str) -> str:
        """What errors call one sensor's pixels of a sample."""
        return f"sample {index}"

    @cached_property
    def _positions(self) -> dict[tuple[str, Sequence[str] | None], tuple[int, ...]]:
        """Positions in the sensor of all bands that were asked for so far."""
        return {}

    def _resolve(self, sensor: str, bands: Sequence[str] | None) -> tuple[int, ...]:
        sensors = self.sensors
        if sensor not in sensors:
            raise sensor_error(self._place(), sensor, sensors)
        positions = sensors[sensor].indices(sensors[sensor].names if bands is None else bands)
        if not positions:
            raise BandError(f"No band of sensor {sensor!r} is asked for; name at least one.")
        self._positions[sensor, bands] = positions
        return positions

    @cached_property
    def _bound(self) -> dict[tuple[str, tuple[str, ...] | None], Reader]:
        """What reads all bands that were asked for so far."""
        return {}


def leaves(window: Window, height: int, width: int) -> bool:
    """Whether a window is empty, or leaves a rectangle of ``height`` rows and ``width`` columns."""
    top, left, rows, columns = window
    return top < 0 or left < 0 or rows < 1 or columns < 1 or top + rows > height or left + columns > width


def window_error(window: Window, height: int, width: int, what: str) -> FlawError:
    """The error of a window that leaves what it is to be cut from.

    Args:
        window: The part that was asked for.
        height: Rows that there are.
        width: Columns that there are.
        what: Names the thing that it leaves.
    """
    return FlawError(
        Problem.GRID, f"Window {tuple(window)} (top, left, height, width) leaves {what}, which is {height}x{width}."
    )


def sensor_error(place: str, sensor: str, sensors: Iterable[str]) -> BandError:
    """The error of a sensor that an archive has not.

    Args:
        place: Where the archive lies, as errors say it.
        sensor: The key that was asked for.
        sensors: The keys that there are.
    """
    return BandError(f"{place} has no sensor {sensor!r}.{nearest(sensor, sensors)}")


def source_name(source: Mapping[str, Any]) -> str:
    """Layout and folder of an archive, as a table names it: the path that leads there stays on this machine.

    Args:
        source: Provenance of the archive, as :attr:`Archive.source` gives it.
    """
    return f"{source.get('layout')} {Path(str(source.get('root') or '')).name}".strip()


def source_place(source: Mapping[str, Any]) -> str:
    """Where an archive lies, as an error names it; its layout where it lies in no file.

    Args:
        source: Provenance of the archive, as :attr:`Archive.source` gives it.
    """
    return str(source.get("root") or f"the {source.get('layout')} archive")
