"""What every archive is: samples by index, each a mapping from sensor to pixels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from terrasieve.sensors import Sensor


class Window(NamedTuple):
    """A rectangle of pixels of one sample: rows ``top:top+height``, columns ``left:left+width``."""

    top: int
    left: int
    height: int
    width: int


class Archive(Protocol):
    """Unlabelled or labelled samples that can be read by band and window.

    Implementations are cheap to pickle and safe to use in forked worker processes.
    """

    @property
    def sensors(self) -> Mapping[str, Sensor]:
        """The sensors by key; the key is how callers ask for one, for example ``s2``."""

    @property
    def ids(self) -> NDArray[np.str_]:
        """One stable, unique name per sample, shape ``(n,)``."""

    @property
    def source(self) -> Mapping[str, Any]:
        """Provenance as JSON-able values: ``layout``, ``root``, options, ``simulated``, ``fingerprint``."""

    def __len__(self) -> int:
        """Number of samples."""

    def shape(self, index: int, sensor: str) -> tuple[int, int]:
        """Height and width of a sample's pixels for one sensor."""

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
            bands: Names in the order wanted; all bands when None.
            window: The part wanted; the whole sample when None.

        Returns:
            Array of shape ``(bands, height, width)`` in the type and unit of the product.

        Raises:
            BandError: The sensor or a band is not in the archive.
            SampleError: The pixels cannot be read, or the window leaves the sample.
        """

    def table(self) -> pa.Table:
        """One row a sample, in index order.

        Columns: ``id`` (string); ``geometry`` (WKB polygon in longitude and latitude, null where unknown);
        ``time`` (timestamp[us, UTC], null where unknown); ``label`` (string, null where unlabelled);
        ``split`` (string ``train``/``val``/``test``, null where none is published);
        ``crs`` (string such as ``EPSG:32632``); ``transform`` (list of six floats, the affine a-f);
        one ``asset:<sensor>`` string per sensor. Archives may add columns.
        """


def source_name(source: Mapping[str, Any]) -> str:
    """Layout and folder of an archive, as a table names it: the path that leads there stays on this machine.

    Args:
        source: :attr:`Archive.source`.
    """
    return f"{source.get('layout')} {Path(str(source.get('root') or '')).name}".strip()


def source_place(source: Mapping[str, Any]) -> str:
    """Where an archive lies, as an error names it; its layout where it lies in no file.

    Args:
        source: :attr:`Archive.source`.
    """
    return str(source.get("root") or f"the {source.get('layout')} archive")
