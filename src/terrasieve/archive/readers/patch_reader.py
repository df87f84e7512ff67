"""What reads the patches of one sensor, and what readers of several formats have in common."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from numpy.typing import NDArray

from terrasieve.archive.protocol import Window
from terrasieve.archive.quality.limits import FlawError, Problem
from terrasieve.archive.readers.geotiff import Header
from terrasieve.sensors import Sensor


class PatchReader(Protocol):
    """Reads the pixels of one sensor.

    An address is what the listing says of one patch: usually a path below the root. Implementations are cheap to
    pickle and safe in forked workers: they keep paths, never handles.
    """

    @property
    def sensor(self) -> Sensor:
        """What the pixels are."""

    def files(self, address: str) -> Sequence[Path]:
        """The files that hold a patch, the one that stands for it first."""

    def shape(self, address: str) -> tuple[int, int]:
        """Height and width of a patch."""

    def read(self, address: str, positions: Sequence[int], window: Window | None) -> NDArray[Any]:
        """Pixels of some bands of a patch.

        Args:
            address: What the listing says of the patch.
            positions: Of the bands in the sensor, from 0.
            window: The part wanted, within :meth:`shape`; all of the patch when None.

        Returns:
            Array of shape ``(len(positions), height, width)``.

        Raises:
            SampleError: The pixels cannot be read, or are not those of the sensor.
        """

    def header(self, address: str) -> Header | None:
        """What says where a patch lies; None where its files do not.

        Raises:
            SampleError: The file is absent, truncated or not a raster.
        """


def item_address(file: str, *place: int) -> str:
    """The address of a patch in a file that holds many, such as ``training.h5#17``.

    Args:
        file: Path relative to the root.
        place: Position of the patch in the file, counted from 0, the outermost dimension first.
    """
    return f"{file}#{','.join(map(str, place))}"


def split_item_address(address: str) -> tuple[str, tuple[int, ...]]:
    """The file and the position in it that :func:`item_address` put together."""
    file, _, place = address.rpartition("#")
    return file, tuple(int(number) for number in place.split(","))


def native_sizes(sensor: Sensor, size: tuple[int, int]) -> list[tuple[int, int]]:
    """Height and width of each band of a patch at its own resolution, from those of the finest bands."""
    finest = min(band.gsd for band in sensor.bands)
    return [(round(size[0] * finest / band.gsd), round(size[1] * finest / band.gsd)) for band in sensor.bands]


def check_size(path: Path, found: tuple[int, int], wanted: tuple[int, int] | None) -> None:
    """Refuse a patch of another size than all of its layout have.

    Raises:
        SampleError: It has.
    """
    if wanted is not None and found != wanted:
        raise FlawError(
            Problem.GRID,
            f"{path} is {found[0]}x{found[1]} px, patches of this layout are {wanted[0]}x{wanted[1]}; remove it.",
        )
