"""Bands and sensors: names, order, ground sampling distance, wavelength, unit, valid range.

The one place that knows them. A user's own sensor is declared in YAML in the same form::

    name: my-camera
    kind: optical
    bands:
      - {name: G, common_name: green, gsd: 3, wavelength_um: 0.56, unit: dn, valid_range: [0, 4095]}
      - {name: R, common_name: red, gsd: 3, wavelength_um: 0.66, unit: dn, valid_range: [0, 4095]}
    nodata: 0

Wavelengths and resolutions are those of the ESA Sentinel-2 and Sentinel-1 product handbooks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self

import yaml
from pydantic import Field, SerializerFunctionWrapHandler, ValidationError, model_serializer, model_validator

from terrasieve.errors import BandError, ConfigError, nearest
from terrasieve.schema import Spec, parse_yaml

Unit = Literal["reflectance_e4", "reflectance", "db", "linear", "dn", "class", "m", "index"]
Kind = Literal["optical", "radar", "map"]


class Band(Spec):
    """One band of a sensor.

    Attributes:
        name: Name as the product gives it, for example ``B04`` or ``VV``.
        common_name: STAC common name, for example ``red``; None where there is none.
        gsd: Ground sampling distance in metres.
        wavelength_um: Centre wavelength in micrometres.
        unit: ``reflectance_e4`` is reflectance times 10,000; ``dn`` is uncalibrated; ``m`` is metres;
            ``index`` is a normalised difference, -1 to 1.
        valid_range: Lowest and highest plausible value, in ``unit``.
    """

    name: str = Field(min_length=1)
    common_name: str | None = None
    gsd: float = Field(gt=0)
    wavelength_um: float | None = Field(default=None, gt=0)
    unit: Unit
    valid_range: tuple[float, float]


class BandStatistics(Spec):
    """What one streaming pass over the valid pixels of a band measured, in the band's unit.

    Attributes:
        band: Name of the band.
        count: Number of valid pixels.
        mean: Mean of the valid pixels.
        std: Standard deviation of the valid pixels, not negative.
        minimum: Lowest value of a valid pixel.
        maximum: Highest value of a valid pixel.
    """

    band: str
    count: int = Field(ge=0)
    mean: float
    std: float = Field(ge=0)
    minimum: float
    maximum: float


class Sensor(Spec):
    """An ordered set of bands that are delivered together.

    Attributes:
        name: Name of the sensor and product, for example ``s2-l2a``.
        kind: What it sees; view recipes may ask for ``optical`` or ``radar``. A ``map`` holds what others derived, such
            as classes or heights: probes never show it to an encoder.
        bands: The bands in the order of the pixels' first axis.
        nodata: Pixel value that means "nothing measured here"; NaN always does.
        sets: Named selections of bands, for example ``rgb``.
        scaling: What becomes of a scale and an offset that a file or an item states: ``stated`` applies them, so that
            pixels come in the bands' units; ``ignore`` takes the pixels to be in these units already.
    """

    name: str = Field(min_length=1)
    kind: Kind
    bands: tuple[Band, ...] = Field(min_length=1)
    nodata: float | None = None
    sets: Mapping[str, tuple[str, ...]] = Field(default_factory=dict)
    scaling: Literal["stated", "ignore"] = "stated"

    @model_serializer(mode="wrap")
    def _without_the_usual(self, serialise: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # Stores and digests of declarations that were written before there was a choice stay what they are.
        values: dict[str, Any] = serialise(self)
        return {key: value for key, value in values.items() if (key, value) != ("scaling", "stated")}

    @model_validator(mode="after")
    def _names_agree(self) -> Self:
        names = self.names
        doubled = sorted({n for n in names if names.count(n) > 1})
        if doubled:
            raise ValueError(f"sensor {self.name!r} declares {', '.join(doubled)} more than once")
        for key, members in self.sets.items():
            unknown = [m for m in members if m not in names]
            if unknown:
                raise ValueError(f"set {key!r} of sensor {self.name!r} names {unknown[0]!r}, which is not a band of it")
        return self

    @property
    def names(self) -> tuple[str, ...]:
        """Band names in pixel order."""
        return tuple(band.name for band in self.bands)

    @property
    def key(self) -> str:
        """What it is called in an archive where nobody says: the first part of its name, ``s2`` of ``s2-l2a``."""
        return self.name.partition("-")[0]

    @property
    def eight_bit(self) -> bool:
        """Whether it is a built-in sensor of pictures, whose values are bytes and stand for nothing else."""
        bytes_only = all(band.unit == "dn" and band.valid_range == (0, 255) for band in self.bands)
        return self.name in SENSORS and bytes_only

    def indices(self, names: Sequence[str]) -> tuple[int, ...]:
        """Positions of bands along the first pixel axis, from 0.

        Args:
            names: Band names, in any order; a name may come twice.

        Raises:
            BandError: A name is not a band of this sensor.
        """
        own = self.names
        for name in names:
            if name not in own:
                raise BandError(f"Sensor {self.name!r} has no band {name!r}.{nearest(name, own)}")
        return tuple(own.index(name) for name in names)

    def resolve(self, selection: str | Sequence[str]) -> tuple[str, ...]:
        """Turn ``all``, the name of a set or a list of band names into band names.

        Raises:
            BandError: The set or a band is unknown, or a band is named twice.
        """
        if isinstance(selection, str):
            if selection == "all":
                return self.names
            if selection in self.sets:
                return self.sets[selection]
            if selection in self.names:
                return (selection,)
            raise BandError(
                f"Sensor {self.name!r} has no band set {selection!r}."
                f"{nearest(selection, ['all', *self.sets, *self.names])}"
            )
        names = tuple(selection)
        self.indices(names)
        if len(set(names)) != len(names):
            raise BandError(f"A band is named twice in {list(names)} of sensor {self.name!r}; name each once.")
        return names

    def select(self, *names: str) -> Sensor:
        """A sensor with these bands only, in this order.

        Raises:
            BandError: A name is not a band of this sensor, or is given twice.
        """
        kept = self.resolve(names)
        # A set that lost a band would mean something else than its name says.
        sets = {key: members for key, members in self.sets.items() if set(members) <= set(kept)}
        bands = tuple(self.bands[i] for i in self.indices(kept))
        return Sensor(name=self.name, kind=self.kind, bands=bands, nodata=self.nodata, sets=sets, scaling=self.scaling)


# -------------------------------------------------------------------- built in


def _optical(rows: Sequence[tuple[str, str | None, float, float]]) -> tuple[Band, ...]:
    # 20,000 is a reflectance of 2: clouds, glint and slopes of snow that face the sun exceed 1.
    return tuple(
        Band(name=n, common_name=c, gsd=g, wavelength_um=w, unit="reflectance_e4", valid_range=(0, 20000))
        for n, c, g, w in rows
    )


def _radar(names: Sequence[str], unit: Unit, valid_range: tuple[float, float]) -> tuple[Band, ...]:
    return tuple(Band(name=n, common_name=n, gsd=10, unit=unit, valid_range=valid_range) for n in names)


RS_BYOL_BANDS = ("B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B11", "B12")
"""The ten bands of 10-20 m that RS-BYOL trains on (Jain et al. 2022, section IV-A)."""

_S2_L1C = _optical(
    [
        ("B01", "coastal", 60, 0.443),
        ("B02", "blue", 10, 0.490),
        ("B03", "green", 10, 0.560),
        ("B04", "red", 10, 0.665),
        ("B05", "rededge", 20, 0.704),
        ("B06", "rededge", 20, 0.740),
        ("B07", "rededge", 20, 0.783),
        ("B08", "nir", 10, 0.833),
        ("B8A", "nir08", 20, 0.865),
        ("B09", "nir09", 60, 0.945),
        ("B10", "cirrus", 60, 1.374),
        ("B11", "swir16", 20, 1.610),
        ("B12", "swir22", 20, 2.190),
    ]
)
_S2_SETS = {
    "rs-byol": RS_BYOL_BANDS,
    "rgb": ("B04", "B03", "B02"),
    "rededge": ("B05", "B06", "B07"),
    "rs-byol-non-rgb": tuple(b for b in RS_BYOL_BANDS if b not in ("B02", "B03", "B04")),
}
_RGB8 = tuple(
    band.model_copy(update={"unit": "dn", "valid_range": (0.0, 255.0)})
    for name in ("B04", "B03", "B02")
    for band in _S2_L1C
    if band.name == name
)
_RED, _GREEN, _BLUE, _GRAY = (
    Band(name=name, common_name=colour, gsd=1, unit="dn", valid_range=(0, 255))
    for name, colour in (("R", "red"), ("G", "green"), ("B", "blue"), ("gray", None))
)

SENSORS: Mapping[str, Sensor] = {
    sensor.name: sensor
    for sensor in (
        Sensor(name="s2-l1c", kind="optical", bands=_S2_L1C, nodata=0, sets=_S2_SETS),
        Sensor(
            name="s2-l2a",
            kind="optical",
            bands=tuple(b for b in _S2_L1C if b.name != "B10"),
            nodata=0,
            sets=_S2_SETS,
        ),
        Sensor(
            name="s2-rgb8",
            kind="optical",
            bands=_RGB8,
            sets={"rgb": ("B04", "B03", "B02"), "rs-byol": ("B02", "B03", "B04")},
        ),
        Sensor(name="rgb8", kind="optical", bands=(_RED, _GREEN, _BLUE), sets={"rgb": ("R", "G", "B")}),
        Sensor(name="gray8", kind="optical", bands=(_GRAY,)),
        Sensor(name="s1", kind="radar", bands=_radar(("VV", "VH"), "db", (-50, 30))),
        Sensor(name="s1-linear", kind="radar", bands=_radar(("VV", "VH"), "linear", (0, 1000))),
        Sensor(name="s1-vh8", kind="radar", bands=_radar(("VH",), "dn", (0, 255))),
        Sensor(
            name="s1-wv",
            kind="radar",
            bands=(Band(name="VV", common_name="VV", gsd=50, unit="linear", valid_range=(0, 1000)),),
        ),
        Sensor(
            name="land-cover",
            kind="map",
            bands=(Band(name="class", gsd=10, unit="class", valid_range=(0, 255)),),
        ),
        Sensor(
            name="dem",
            kind="map",
            bands=(Band(name="DEM", gsd=30, unit="m", valid_range=(-500, 9000)),),
        ),
        Sensor(
            name="ndvi",
            kind="map",
            bands=(Band(name="NDVI", gsd=10, unit="index", valid_range=(-1, 1)),),
        ),
    )
}
"""Built-in sensors. ``s2-rgb8`` and ``s1-vh8`` are products stretched to 8 bits, without calibration. ``rgb8`` and
``gray8`` are pictures of any camera, of three bands or one; their ground sampling distance of 1 m stands for one that
nobody states. ``dem`` is the Copernicus DEM of 30 m."""


# --------------------------------------------------------------------- finding


def load_sensor(name_or_path: str | Path) -> Sensor:
    """A built-in sensor by name, or one declared in a YAML file.

    Args:
        name_or_path: Key of :data:`SENSORS`, which goes before a file of that name, or path of a YAML file.

    Raises:
        BandError: Neither a built-in sensor nor an existing file.
        ConfigError: The file is not a valid declaration.
    """
    if str(name_or_path) in SENSORS:
        return SENSORS[str(name_or_path)]
    path = Path(name_or_path)
    if not path.is_file():
        raise BandError(
            f"No built-in sensor and no file is called {str(name_or_path)!r}.{nearest(str(name_or_path), SENSORS)}"
        )
    try:
        return Sensor.model_validate(parse_yaml(path.read_text(encoding="utf-8")))
    except (yaml.YAMLError, ValidationError) as error:
        raise ConfigError(f"{path} does not declare a sensor: {error}") from error


def anchored_sensor(said: str | Sensor, folder: Path) -> str | Sensor:
    """What a YAML file says of a sensor, with the path of a declaration beside that file made whole.

    Args:
        said: Key of :data:`SENSORS`, path of a declaration, or the declaration itself.
        folder: Of the YAML file.
    """
    if isinstance(said, str) and said not in SENSORS and (folder / said).is_file():
        return str(folder / said)
    return said


def find_sensor(sensors: Mapping[str, Sensor], wanted: str) -> str:
    """The key of the sensor that is meant, by key, sensor name or kind.

    Args:
        sensors: An archive's sensors by key.
        wanted: A key such as ``s2``, a sensor's name such as ``s2-l2a`` or a kind such as ``optical``.

    Raises:
        BandError: None matches, or a kind or name matches several.
    """
    if wanted in sensors:
        return wanted
    hits = [key for key, sensor in sensors.items() if wanted in (sensor.name, sensor.kind)]
    if len(hits) == 1:
        return hits[0]
    have = ", ".join(f"{key} ({sensor.kind})" for key, sensor in sensors.items())
    if not hits:
        raise BandError(f"The archive has no sensor {wanted!r}. It has: {have}.")
    raise BandError(f"{wanted!r} could be any of {', '.join(hits)}; name one of them. The archive has: {have}.")
