"""Encoders to work with: ours, or those that others published, each with what it must be given."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from terrasieve.archive.cubes.cube_archive import cube_in, names_in
from terrasieve.archive.layout import ArchiveSpec
from terrasieve.archive.protocol import Archive, source_place
from terrasieve.archive.scenes.whole_scene import whole_scenes
from terrasieve.band_names import match_names, sensor_with
from terrasieve.baselines.baseline import FORMS, Baseline, Repeated
from terrasieve.baselines.loading import load_baseline
from terrasieve.console import progress_shown
from terrasieve.device import pick_device
from terrasieve.embeddings.inputs import EncoderInput
from terrasieve.embeddings.quantising import Quantise
from terrasieve.embeddings.scene_maps.dense_cells import DenseSettings
from terrasieve.embeddings.scene_maps.making import check_output, dense_job, write_maps
from terrasieve.embeddings.stream import (
    EmbedSettings,
    StatisticsOf,
    calibrated_encoders,
    normaliser_for,
)
from terrasieve.embeddings.table import EmbeddingTable, embed
from terrasieve.errors import BandError, ConfigError
from terrasieve.library.sources import open_source
from terrasieve.models.backbone import BackboneSpec, Encoder
from terrasieve.models.export import EncoderCard, load_encoder
from terrasieve.probes.models import Candidate, showing
from terrasieve.probes.results import default_inputs, distinct_members
from terrasieve.runs import CARD, WEIGHTS, Provenance, RunFolder
from terrasieve.sensors import SENSORS
from terrasieve.views.render import Normaliser

Bands = str | Sequence[str] | None
"""What an encoder is shown: ``s2:B04``, ``rgb``, or a list of these or of band names."""


class PretrainedEncoder(nn.Module):
    """A network from standardised pixels to vectors, beside what it must be given.

    Args:
        network: The network.
        card: What it was trained on and how; of a network that others published, what is known.
        name: What it is called.
        bands: What its channels mean, as band names or common names; None where any bands will do.
        own: Whether terrasieve trained it, so that its card holds the statistics of every band.

    Attributes:
        preprocess: From pixels in the sensor's own unit to what :meth:`forward` takes; see :class:`Preprocess`.
    """

    def __init__(
        self, network: Encoder, card: EncoderCard, name: str, bands: tuple[str, ...] | None = None, own: bool = True
    ) -> None:
        super().__init__()
        self.network = network
        self.card = card
        self.name = name
        self.bands = bands
        self.own = own
        self.preprocess = Preprocess(card)

    @property
    def channels(self) -> int:
        """Number of bands that it takes."""
        return self.network.channels

    @property
    def features(self) -> int:
        """Length of the vector that it gives."""
        return self.network.features

    def forward(self, pixels: Tensor) -> Tensor:
        """Features ``(n, features)`` of standardised pixels ``(n, channels, height, width)``.

        Raises:
            BandError: The pixels have another number of bands than the network.
        """
        features: Tensor = self.network(pixels)
        return features

    def embed(
        self,
        data: object,
        bands: Bands = None,
        *,
        statistics: StatisticsOf | None = None,
        size: int | None = None,
        batch_size: int = 256,
        device: str = "auto",
        progress: bool = True,
    ) -> EmbeddingTable:
        """Vectors of every sample.

        Args:
            data: An archive, or what :func:`terrasieve.open` makes one of. An array needs ``bands`` for its second
                axis, which are looked for among the sensors that the encoder was trained on.
            bands: Bands to show it: ``"s2:B04"``, the name of a set such as ``"rgb"``, or a list; those of several
                entries with a sensor are joined. A network of one band sees those of a larger entry one by one. When
                None, the first that fits.
            statistics: Standardise pixels as in training (``encoder``) or by the archive's own statistics
                (``archive``: another stretch or unit). When None, as in training where these are known.
            size: Resize samples to so many pixels; their own when None.
            batch_size: Samples in one forward pass.
            device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
            progress: Whether a bar shows how far it is.

        Raises:
            ArchiveError: ``data`` is nothing that an archive can be made of.
            BandError: The bands are not there, or are not those that the encoder was trained on.
            SampleError: A sample cannot be read, or samples differ in size and no size is set.
        """
        with progress_shown(progress):
            archive = self._opened(data, bands)
            model, members = self._shown(archive, bands, device)
            origin = statistics or ("encoder" if self.own else "archive")
            normaliser = normaliser_for(origin, self.card, archive, members)
            settings = EmbedSettings(size=size, batch_size=batch_size)
            if self.own and origin == "archive":
                samples = np.arange(len(archive))
                measured = calibrated_encoders(self.network, archive, members, normaliser, settings, samples, 0)
                return embed(measured, self.card, archive, members, normaliser, settings)
            return embed(model, self.card, archive, members, normaliser, settings)

    def embed_dense(
        self,
        data: object,
        out: str | os.PathLike[str],
        bands: Bands = None,
        *,
        stride: int = 8,
        tile: int | None = None,
        quantise: Quantise | None = None,
        picture: bool = False,
        statistics: StatisticsOf | None = None,
        batch_size: int = 8,
        device: str = "auto",
        progress: bool = True,
    ) -> Path:
        """Write a map of vectors of every place of whole scenes; :func:`terrasieve.open_maps` reads it.

        Args:
            data: Scenes, as a path or as the archive that :func:`terrasieve.open` makes of them, however it cuts them.
            out: ``.zarr`` for a store of all scenes; ``.tif`` for a cloud-optimised GeoTIFF of the one scene. One that
                is there is replaced.
            bands: As for :meth:`embed`.
            stride: Pixels from one vector to the next.
            tile: Height and width in pixels of what the encoder is shown at a time. When None, about 256 for a ResNet,
                for a ViT that of its training.
            quantise: ``int8`` stores 8 bits a number, with a scale for each dimension; float32 when None.
            picture: Whether the three main components are written as colours, instead of the vectors.
            statistics: As for :meth:`embed`.
            batch_size: Tiles in one forward pass.
            device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
            progress: Whether a bar shows how far it is.

        Returns:
            ``out``.

        Raises:
            ArchiveError: ``data`` is nothing that an archive can be made of.
            BandError: The bands are not there, or are not those that the encoder was trained on.
            ConfigError: ``data`` holds ready-cut samples, the network gives no feature maps, the tile does not fit it,
                or the output cannot hold what is asked for.
            SampleError: Pixels cannot be read.
            WriteError: The output cannot be written.
        """
        place = Path(out)
        check_output(place, quantise, picture)
        with progress_shown(progress):
            opened = self._opened(data, bands)
            spec = opened.spec
            assert isinstance(spec, ArchiveSpec), "what opens an archive is one"
            archive, scenes = whole_scenes(spec, source_place(opened.source))
            model, members = self._shown(archive, bands, device)
            origin = statistics or ("encoder" if self.own else "archive")
            settings = DenseSettings(stride=stride, tile=tile, batch_size=batch_size)
            job = dense_job(model, self.card, archive, scenes, members, origin, settings, calibrates=self.own)
            return write_maps(place, job, quantise, picture)

    def __repr__(self) -> str:
        takes = "any bands" if self.bands is None else ", ".join(self.bands)
        return (
            f"<Encoder {self.name}: {self.card.backbone.name}, {self.channels} band(s) ({takes}) to {self.features} "
            "numbers>"
        )

    def _opened(self, data: object, bands: Bands) -> Archive:
        known = self.card.sensors or SENSORS
        if (cube := cube_in(data)) is not None:
            # Statistics are found by the key that the sensor had in training.
            said = names_in(cube)
            fitting = {key: sum(map(bool, match_names(said, one))) for key, one in known.items()}
            key = max(fitting, key=fitting.__getitem__)
            return open_source(data, sensor=known[key], key=key) if fitting[key] else open_source(data)
        if not hasattr(data, "__array__"):
            return open_source(data)
        if bands is None or isinstance(bands, str):
            raise BandError(
                "An array does not say what its bands are: name those of its second axis, in order, as in "
                "bands=['B04', 'B03', 'B02']."
            )
        found = sensor_with(bands, known.values())
        # Statistics are found by the key that the sensor had in training.
        key = next(key for key, one in known.items() if one.name == found.name)
        return open_source(data, sensor=found, key=key)

    def _shown(
        self, archive: Archive, bands: Bands, device: str
    ) -> tuple[Encoder | Repeated, tuple[EncoderInput, ...]]:
        """The network, or copies of a band to it, on a device, and what it is shown."""
        candidate = Candidate(self.name, self.network.to(pick_device(device)), self.channels, self.bands)
        shown = [showing(candidate, one, archive.sensors) for one in self._wanted(archive, bands)]
        model = shown[0].model
        assert isinstance(model, (Encoder, Repeated)), "what is shown is this network, or copies of a band to it"
        return model, distinct_members(one.row for one in shown)

    def _wanted(self, archive: Archive, bands: Bands) -> list[EncoderInput]:
        if bands is None:
            return list(default_inputs(archive.sensors, self.channels))[:1]
        texts = [bands] if isinstance(bands, str) else list(bands)
        if any(":" in text for text in texts):
            return [EncoderInput.parse(text) for text in texts]
        if len(archive.sensors) > 1:
            keys = ", ".join(archive.sensors)
            raise BandError(f"bands={bands!r} is of which sensor? The archive has {keys}: write 's2:B04' or 's2:rgb'.")
        return [EncoderInput(sensor=next(iter(archive.sensors)), bands=tuple(texts))]


class Preprocess:
    """From pixels in a sensor's own unit to what an encoder takes: clipped to plausible values and standardised.

    Args:
        card: Of the encoder, with sensors and the statistics of their bands.
    """

    def __init__(self, card: EncoderCard) -> None:
        self._card = card
        self._normaliser = Normaliser(card.sensors, card.statistics)

    def __call__(self, pixels: Tensor | ArrayLike, bands: str) -> Tensor:
        """Standardised pixels, float32 ``(n, channels, height, width)``; missing ones are 0, the mean of their band.

        Args:
            pixels: ``(n, channels, height, width)`` in the unit of the bands, as the product delivers them.
            bands: What the channels are, for example ``s2:B04`` or ``s2:B04,B03,B02``.

        Raises:
            BandError: The encoder was not trained on these bands, or there are as many channels as bands.
        """
        shown = EncoderInput.parse(bands).resolve(self._card.sensors)
        given = pixels if isinstance(pixels, Tensor) else torch.from_numpy(np.asarray(pixels))
        if given.ndim != 4 or given.shape[1] != len(shown.bands):
            raise BandError(
                f"{shown} are {len(shown.bands)} band(s), but the pixels have shape {tuple(given.shape)}; give "
                "(samples, bands, height, width)."
            )
        return self._normaliser(given, [(shown.sensor, band) for band in shown.bands])

    def __repr__(self) -> str:
        sensors = ", ".join(f"{key}:{','.join(one.names)}" for key, one in self._card.sensors.items())
        return f"<Preprocess of {sensors or 'nothing: its statistics are unknown'}>"


def load_pretrained(source: str | os.PathLike[str]) -> PretrainedEncoder:
    """An encoder by what names it, on the CPU and in eval mode.

    Args:
        source: The folder of a run or of an exported encoder; or what ``--baseline`` takes, such as
            ``imagenet:resnet50``, ``torchgeo:ResNet50_Weights.SENTINEL2_ALL_MOCO``, ``hub:<owner>/<name>`` or
            ``random:resnet18:1``; or a repository ``<owner>/<name>`` of Hugging Face's hub, or a folder of its files.
            From one that ``terrasieve push`` made the encoder comes with its card, as from the run. Weights that are
            not on this machine are downloaded.

    Raises:
        CheckpointError: There is none, or a file is damaged, foreign or of another network.
        ConfigError: Nothing is called that.
    """
    text = os.fspath(source)
    if RunFolder(Path(text)).exported() is not None:
        encoder, card = load_encoder(Path(text))
        return PretrainedEncoder(encoder, card, card.recipe).eval()
    if text.partition(":")[0] in FORMS:
        return _of_others(load_baseline(text))
    named = text.count("/") == 1 and not Path(text).exists()
    if named and (folder := _pushed(text)) is not None:
        encoder, card = load_encoder(folder)
        return PretrainedEncoder(encoder, card, card.recipe).eval()
    if named or Path(text).is_dir():
        return _of_others(load_baseline(f"hub:{text}"))
    raise ConfigError(
        f"{text} is no encoder: neither a run folder nor a repository on Hugging Face's hub. Write one of: "
        f"the folder of a run; {'; '.join(FORMS.values())}."
    )


def _pushed(repository: str) -> Path | None:
    """The downloaded files of an encoder that ``terrasieve push`` uploaded; None of any other repository."""
    # A dependency of timm, and slow to import.
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError

    try:
        card = Path(hf_hub_download(repository, CARD))
        hf_hub_download(repository, WEIGHTS)
    except (EntryNotFoundError, OSError, ValueError):
        # Where it is the hub that fails, loading the model of others says so.
        return None
    return card.parent


def _of_others(baseline: Baseline) -> PretrainedEncoder:
    facts = baseline.facts
    model = baseline.encoder.model
    published = getattr(model, "pretrained_cfg", None) or {}
    known = Provenance.model_validate(
        {"training": facts.training, "citation": facts.citation, "licence": facts.licence, "notes": baseline.notes}
    )
    card = EncoderCard(
        backbone=BackboneSpec(
            name=published.get("architecture", type(model).__name__.lower()), channels=baseline.channels
        ),
        method=facts.training,
        recipe=baseline.name,
        image_size=(published.get("input_size") or (3, 224, 224))[-1],
        sensors={},
        view_bands=(),
        statistics={},
        provenance=known,
        weights_sha256=baseline.sha256,
    )
    return PretrainedEncoder(baseline.encoder, card, baseline.name, baseline.bands, own=False).eval()
