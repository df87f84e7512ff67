"""What makes an archive pleasant to hold in a notebook: samples by position, parts of it, a look at it.

Everything here is told by what an archive has anyway; see :class:`terrasieve.archive.protocol.Archive`.
"""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from terrasieve.errors import ArchiveError, TerrasieveError

if TYPE_CHECKING:
    from terrasieve.archive.protocol import Archive
    from terrasieve.archive.torch_dataset import TorchSamples
    from terrasieve.pictures import Picture

_THUMBNAILS = 6
"""Samples that a notebook shows of an archive."""
_SHEET = 24
"""Samples that are drawn where nobody says which."""


class Sample(Mapping[str, NDArray[Any]]):
    """One sample: a mapping from sensor to pixels, which are read when they are asked for.

    ``sample["s2"]`` are pixels ``(bands, height, width)`` in the type and unit of the product.

    Args:
        archive: The archive that it is of.
        index: Its position there, from 0.
    """

    def __init__(self, archive: Archive, index: int) -> None:
        self.archive = archive
        self.index = index

    @property
    def id(self) -> str:
        """Its name, unique in the archive."""
        return str(self.archive.ids[self.index])

    @property
    def columns(self) -> dict[str, Any]:
        """Its row of the archive's table: place, time, label and whatever else is known."""
        return dict(self.archive.table().slice(self.index, 1).to_pylist()[0])

    def plot(self) -> Picture:
        """Its sensors side by side.

        Raises:
            SampleError: The pixels cannot be read.
        """
        return _drawn(self.archive, [self.index])

    def __getitem__(self, sensor: str) -> NDArray[Any]:
        if sensor not in self.archive.sensors:
            raise KeyError(sensor)
        return self.archive.read(self.index, sensor)

    def __iter__(self) -> Iterator[str]:
        return iter(self.archive.sensors)

    def __len__(self) -> int:
        return len(self.archive.sensors)

    def __repr__(self) -> str:
        shapes = []
        for key, sensor in self.archive.sensors.items():
            height, width = self.archive.shape(self.index, key)
            shapes.append(f"{key} {len(sensor.bands)}x{height}x{width}")
        return f"<Sample {self.id!r}: {', '.join(shapes)}>"

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        return f"{html.escape(repr(self))}<br>{_thumbnails(self.archive, [self.index])}"


class Browsable:
    """Positions, slices, masks, drawings and a line that says what it is, for every archive."""

    # Given by the archive, which is a subclass; see ``Archive``.
    if TYPE_CHECKING:

        def __len__(self) -> int: ...

    @overload
    def __getitem__(self, wanted: int) -> Sample: ...
    @overload
    def __getitem__(self, wanted: slice | ArrayLike) -> Archive: ...
    def __getitem__(self, wanted: int | slice | ArrayLike) -> Sample | Archive:
        """One sample by its position, or an archive of some samples.

        Args:
            wanted: A position, from the end where it is negative; or a slice, a boolean mask ``(n,)`` or positions
                ``(m,)``, which give an archive.

        Raises:
            IndexError: A position is not in the archive.
            ArchiveError: A mask is not as long as the archive, or it is something else.
        """
        # Imported here, as below: a part of an archive is itself an archive, and so is made of what is defined here.
        from terrasieve.archive.derived.subset import SubsetArchive

        if isinstance(wanted, (int, np.integer)) and not isinstance(wanted, bool):
            position = int(wanted) + (len(self) if wanted < 0 else 0)
            if not 0 <= position < len(self):
                raise IndexError(f"sample {wanted} of an archive of {len(self)} samples")
            return Sample(self._archive, position)
        return SubsetArchive(self._archive, _positions(wanted, len(self)))

    def __iter__(self) -> Iterator[Sample]:
        """The samples, first to last; pixels are read when they are asked for."""
        return (Sample(self._archive, index) for index in range(len(self)))

    def plot(self, samples: int | Sequence[int] | None = None) -> Picture:
        """Samples side by side, the sensors of each stretched alike.

        Args:
            samples: One position or several; 24 that are spread evenly over the archive when None.

        Raises:
            IndexError: A position is not in the archive.
            SampleError: The pixels of a sample cannot be read.
        """
        from terrasieve.archive.overview import spaced_evenly

        if samples is None:
            return _drawn(self._archive, spaced_evenly(len(self), _SHEET))
        wanted = [samples] if isinstance(samples, (int, np.integer)) else list(samples)
        return _drawn(self._archive, [self[one].index for one in wanted])

    def as_torch(self, sensor: str | None = None, bands: Sequence[str] | None = None) -> TorchSamples:
        """The samples as a data set of torch's, for a ``DataLoader`` of one's own.

        Args:
            sensor: Key of the sensor whose pixels ``image`` holds; the first when None.
            bands: Names of its bands, in the order wanted; all when None.

        Raises:
            BandError: The sensor or a band is not in the archive.
        """
        from terrasieve.archive.torch_dataset import TorchSamples

        return TorchSamples(self._archive, sensor, bands)

    def __repr__(self) -> str:
        from terrasieve.archive.protocol import source_name

        archive = self._archive
        what = source_name(archive.source) or type(self).__name__
        sensors = ", ".join(f"{key} ({_bands(one.names)} of {one.name})" for key, one in archive.sensors.items())
        simulated = " (simulated)" if archive.source.get("simulated") and "simulated" not in what else ""
        return f"<Archive {what}{simulated}: {len(self):,} samples; {sensors}>"

    def _repr_html_(self) -> str:
        """What a notebook shows: what it is, and a few samples."""
        from terrasieve.archive.overview import spaced_evenly

        return f"{html.escape(repr(self))}<br>{_thumbnails(self._archive, spaced_evenly(len(self), _THUMBNAILS))}"

    @property
    def _archive(self) -> Archive:
        return self  # type: ignore[return-value]  # every subclass is an archive


def _positions(wanted: slice | ArrayLike, count: int) -> NDArray[np.int64]:
    if isinstance(wanted, slice):
        return np.arange(count)[wanted]
    asked = np.asarray(wanted)
    if asked.dtype == np.bool_:
        if asked.shape != (count,):
            raise ArchiveError(
                f"A mask has one entry a sample: this one has shape {asked.shape}, and there are {count} samples."
            )
        return np.flatnonzero(asked)
    if asked.ndim != 1 or (asked.size and not np.issubdtype(asked.dtype, np.integer)):
        raise ArchiveError(
            f"{wanted!r} is no position, slice, mask or list of positions. Write archive[0], archive[:100], "
            "archive[mask] or archive[[3, 1]]; a sample by its id is at numpy.flatnonzero(archive.ids == id)."
        )
    positions = asked.astype(np.int64)
    return np.where(positions < 0, positions + count, positions)


def _bands(names: Sequence[str]) -> str:
    return ", ".join(names) if len(names) <= 4 else f"{len(names)} bands"


def _drawn(archive: Archive, chosen: Sequence[int]) -> Picture:
    from terrasieve.archive.overview import draw_samples
    from terrasieve.pictures import Picture

    if not chosen:
        raise ArchiveError("There is no sample to draw: the archive, or what was chosen of it, is empty.")
    return Picture(draw_samples(archive, chosen), f"{len(chosen)} sample{'s' * (len(chosen) > 1)}")


def _thumbnails(archive: Archive, chosen: Sequence[int]) -> str:
    """Pictures of some samples as HTML; nothing where one cannot be read, because a display must not fail."""
    from PIL import Image

    from terrasieve.archive.quicklook import pictures, shown_bands

    shown: list[str] = []
    try:
        for key, sensor in archive.sensors.items():
            planes = pictures([archive.read(index, key, shown_bands(sensor)) for index in chosen], sensor)
            for index, plane in zip(chosen, planes, strict=True):
                content = io.BytesIO()
                Image.fromarray((plane * 255).round().astype(np.uint8)).save(content, format="png")
                encoded = base64.b64encode(content.getvalue()).decode()
                name = html.escape(f"{archive.ids[index]}, {key}")
                shown.append(
                    f'<img alt="{name}" title="{name}" width="96" style="image-rendering:pixelated;margin:2px" '
                    f'src="data:image/png;base64,{encoded}">'
                )
            shown.append("<br>")
    except TerrasieveError as error:
        return f"<i>{html.escape(str(error))}</i>"
    return "".join(shown)
