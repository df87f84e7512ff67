"""From an encoder and scenes to their maps in a file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from terrasieve.archive.protocol import Archive
from terrasieve.archive.scenes.whole_scene import WholeScene
from terrasieve.baselines.baseline import Repeated
from terrasieve.embeddings.inputs import EncoderInput
from terrasieve.embeddings.quantising import Quantise
from terrasieve.embeddings.scene_maps.dense_cells import DenseSettings
from terrasieve.embeddings.scene_maps.dense_map import DenseJob
from terrasieve.embeddings.scene_maps.map_cog import write_cog, write_picture
from terrasieve.embeddings.scene_maps.map_zarr import write_zarr
from terrasieve.embeddings.stream import EmbedSettings, StatisticsOf, calibrated_encoders, normaliser_for
from terrasieve.errors import ConfigError
from terrasieve.models.backbone import Encoder
from terrasieve.models.export import EncoderCard

STORE, RASTERS = ".zarr", (".tif", ".tiff")
"""How the name of a store of maps ends, and that of a map as GeoTIFF."""


def dense_job(
    encoder: Encoder | Repeated,
    card: EncoderCard,
    archive: Archive,
    scenes: Sequence[WholeScene],
    inputs: Sequence[EncoderInput],
    statistics: StatisticsOf,
    settings: DenseSettings,
    calibrates: bool = True,
) -> DenseJob:
    """A job whose pixels and batch norms are normalised as ``terrasieve embed`` does it.

    Args:
        encoder: Runs on the device that it is on; a timm ResNet or ViT, or one that is shown copies of a band.
        card: What the encoder was trained with.
        archive: The archive that the scenes are of, as :func:`terrasieve.archive.scenes.whole_scene.whole_scenes`
            gives it.
        scenes: The scenes.
        inputs: What the encoder is shown, resolved against the archive.
        statistics: Whose statistics pixels are standardised by. By those of the ``archive``, batch normalisation is
            measured on its samples, too.
        settings: Stride, tile, batch size and precision.
        calibrates: Whether batch normalisation may be measured; a network that others published keeps its own.

    Raises:
        BandError: The encoder was not trained on a sensor or band that it is to be shown.
        ConfigError: The encoder gives no feature maps, or the tile does not fit it.
        SampleError: A sample cannot be read.
    """
    normaliser = normaliser_for(statistics, card, archive, inputs)
    shown: Encoder | Repeated | tuple[Encoder, ...] = encoder
    # What cannot be done is said before anything is measured.
    DenseJob(encoder, card, archive, scenes, inputs, normaliser, settings).settings  # noqa: B018
    if statistics == "archive" and calibrates and isinstance(encoder, Encoder):
        passing = EmbedSettings(precision=settings.precision)
        shown = calibrated_encoders(encoder, archive, inputs, normaliser, passing, np.arange(len(archive)), 0)
    return DenseJob(shown, card, archive, scenes, inputs, normaliser, settings)


def write_maps(path: Path, job: DenseJob, quantise: Quantise | None = None, picture: bool = False) -> Path:
    """Compute the maps of a job into what the name of the output says.

    Args:
        path: ``.zarr`` for a store of all scenes, ``.tif`` for the map, or the picture, of the one scene.
        job: What is made maps of.
        quantise: ``int8`` stores 8 bits a number; float32 when None.
        picture: Whether the picture alone is written.

    Raises:
        ConfigError: The name ends otherwise, a picture is to be a store or quantised, or a GeoTIFF is to hold several
            scenes.
        SampleError: Pixels of a scene cannot be read.
        WriteError: The output cannot be written.
    """
    check_output(path, quantise, picture)
    if picture:
        return write_picture(path, job)
    return write_zarr(path, job, quantise) if path.suffix.lower() == STORE else write_cog(path, job, quantise)


def check_output(path: Path, quantise: Quantise | None, picture: bool) -> None:
    """Refuse what :func:`write_maps` cannot write, by the name of the output alone.

    Raises:
        ConfigError: As there.
    """
    suffix = path.suffix.lower()
    if suffix not in (STORE, *RASTERS):
        raise ConfigError(f"{path} says neither of what a map is written as: let it end in {STORE} or {RASTERS[0]}.")
    if picture and suffix == STORE:
        raise ConfigError(f"A picture is a GeoTIFF, and the output is {path}: let it end in {RASTERS[0]}.")
    if picture and quantise:
        raise ConfigError("A picture has 8 bits a colour already, and no vectors to quantise: ask for one of both.")
