"""What an encoder is shown: bands of one sensor, written ``s2:B04,B03,B02``; vectors of several inputs are joined."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from terrasieve.errors import BandError, ConfigError
from terrasieve.schema import Spec
from terrasieve.sensors import Sensor, find_sensor
from terrasieve.views.recipe import ViewRecipe


class EncoderInput(Spec):
    """The bands of one sensor that fill an encoder's channels, in order.

    Attributes:
        sensor: Key of an archive's sensor; its name or kind before :meth:`resolve`.
        bands: Band names; the name of one of the sensor's sets, or ``all``, before :meth:`resolve`.
    """

    sensor: str = Field(min_length=1)
    bands: tuple[str, ...] = Field(min_length=1)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read the text form ``sensor:band,band``, for example ``s2:B04,B03,B02`` or ``s2:rgb``.

        Raises:
            ConfigError: The text has another form.
        """
        sensor, colon, listed = text.partition(":")
        bands = tuple(band.strip() for band in listed.split(","))
        if not (colon and sensor.strip() and all(bands)):
            raise ConfigError(f"{text!r} is not an encoder input; write sensor:band,band, for example s2:B04,B03,B02.")
        return cls(sensor=sensor.strip(), bands=bands)

    def __str__(self) -> str:
        return f"{self.sensor}:{','.join(self.bands)}"

    def resolve(self, sensors: Mapping[str, Sensor]) -> EncoderInput:
        """This input with the archive's own sensor key and every band by name.

        Raises:
            BandError: The sensor, a band or a set is not there, or a band is named twice.
        """
        key = find_sensor(sensors, self.sensor)
        # A single word may be the name of a set, or ``all``; several are band names.
        selection = self.bands[0] if len(self.bands) == 1 else self.bands
        return EncoderInput(sensor=key, bands=sensors[key].resolve(selection))


def resolve_inputs(
    inputs: Iterable[EncoderInput], sensors: Mapping[str, Sensor], channels: int
) -> tuple[EncoderInput, ...]:
    """Resolve inputs against an archive and check that each fills the encoder.

    Args:
        inputs: Inputs as the user wrote them, each with bands of one sensor.
        sensors: The archive's sensors by key.
        channels: Input channels of the encoder, which the bands of each input have to fill.

    Returns:
        The same inputs with the archive's sensor keys and with every band by name.

    Raises:
        BandError: An input does not exist in the archive or has another number of bands.
        ConfigError: No input is given.
    """
    resolved = tuple(one.resolve(sensors) for one in inputs)
    if not resolved:
        raise ConfigError("No encoder input is given; name at least one, for example s2:B04.")
    for one in resolved:
        if len(one.bands) != channels:
            raise BandError(
                f"Input {one} has {len(one.bands)} band(s), but the encoder takes {channels}. "
                f"Name exactly {channels}, or give each band as an input of its own."
            )
    return resolved


def views_as_inputs(recipe: ViewRecipe, sensors: Mapping[str, Sensor]) -> tuple[EncoderInput, ...]:
    """What an encoder is shown when nobody says it: for each sensor that fills a view, the first bands that fill it.

    Args:
        recipe: Recipe of the views that the encoder was trained on.
        sensors: The archive's sensors by key.

    Raises:
        BandError: The archive lacks a sensor or band.
        ConfigError: Every view mixes sensors, or fills up with copies of bands.
    """
    inputs: dict[str, EncoderInput] = {}
    for view in recipe.branches:
        (drawn, *others) = view.picks
        for pick in drawn.alternatives:
            key = find_sensor(sensors, pick.sensor)
            bands = sensors[key].resolve(pick.bands)[: pick.count]
            if not others and len(bands) == pick.count:
                inputs.setdefault(key, EncoderInput(sensor=key, bands=bands))
    if not inputs:
        raise ConfigError(
            "No view is filled by the bands of one sensor, so there is no obvious input to embed the archive by. "
            "Name it, for example --set 'curation.inputs=[\"s2:B04,B03,B02\"]'."
        )
    return tuple(inputs.values())


def bands_by_sensor(inputs: Iterable[EncoderInput]) -> dict[str, tuple[str, ...]]:
    """The distinct bands that several inputs need, by sensor, so that each is read once a sample."""
    # Dictionaries for sets that keep the order.
    needed: dict[str, dict[str, None]] = {}
    for one in inputs:
        needed.setdefault(one.sensor, {}).update(dict.fromkeys(one.bands))
    return {sensor: tuple(bands) for sensor, bands in needed.items()}


def join(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """One vector a sample: ``(n, 1, features)`` as it is; several scaled to unit length each, then concatenated.

    Args:
        vectors: Shape ``(n, inputs, features)``.

    Returns:
        Shape ``(n, inputs * features)``.
    """
    if vectors.shape[1] == 1:
        return vectors[:, 0]
    lengths = np.linalg.norm(vectors, axis=2, keepdims=True)
    # A vector of zeros stays one.
    unit = vectors / np.maximum(lengths, np.finfo(np.float32).tiny)
    return np.asarray(unit.reshape(len(vectors), -1), dtype=np.float32)
