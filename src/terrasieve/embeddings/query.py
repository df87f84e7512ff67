"""What a search begins with: a sample of the table, or a file that is embedded as its samples were."""

from __future__ import annotations

import difflib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter

from terrasieve.archive.in_memory import ArrayArchive
from terrasieve.archive.readers.geotiff import read_header
from terrasieve.archive.readers.patch_reader import StackReader
from terrasieve.device import pick_device
from terrasieve.embeddings.inputs import bands_by_sensor
from terrasieve.embeddings.stream import EmbedSettings
from terrasieve.embeddings.table import EmbeddingTable, embed
from terrasieve.errors import ConfigError
from terrasieve.models.export import EncoderCard, load_encoder
from terrasieve.sensors import BandStatistics
from terrasieve.views.render import Normaliser

_COMPARED = 10_000
"""Ids that a mistyped one is compared with: all of millions would take minutes."""


def find_query(table: EmbeddingTable, named: str, run: Path | None, device: str) -> int | NDArray[np.float32]:
    """The row of a sample, or the vector of a file.

    Args:
        table: The vectors that are searched.
        named: Id of a sample, which comes first; or path of a file with all bands of the sensor in its order, or with
            those that the encoder is shown.
        run: Folder of the run or encoder that made the vectors; not looked at for a sample.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.

    Returns:
        A row of the table, or a vector ``(features,)``, for :meth:`EmbeddingTable.nearest`.

    Raises:
        ConfigError: It is neither; a file comes without a run or with one that did not make the vectors; or the vectors
            are of several sensors, or depend on the archive that they were made of.
        CheckpointError: The encoder cannot be read.
        SampleError: The file cannot be read, or has other bands.
    """
    found = np.flatnonzero(table.ids == named)
    if len(found):
        return int(found[0])
    path = Path(named)
    if not path.is_file():
        like = difflib.get_close_matches(named, table.ids[:_COMPARED].tolist(), n=1) or [str(table.ids[0])]
        raise ConfigError(
            f"--to {named!r} is no sample of the embeddings, and no file. A sample is called, for example, {like[0]!r}."
        )
    if run is None:
        raise ConfigError(f"{path} has to be embedded first: name the run that made the vectors, --encoder RUN.")
    return QueryEncoder(table, run, device).embed(path)


class QueryEncoder:
    """Embeds files as the samples of a table were: same encoder, inputs, size, precision and statistics.

    Args:
        table: The vectors that files are compared with.
        run: Folder of the run or encoder that made the vectors.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.

    Raises:
        ConfigError: The run did not make the vectors; or they are of several sensors, do not say how they were made, or
            depend on the archive that they were made of.
        CheckpointError: The encoder cannot be read.
    """

    def __init__(self, table: EmbeddingTable, run: Path, device: str) -> None:
        encoder, self._card = load_encoder(run)
        _check_same(table, self._card, run)
        (self._key, self._bands), *others = bands_by_sensor(table.inputs).items()
        if others:
            raise ConfigError(
                f"The vectors are of several sensors ({', '.join(map(str, table.inputs))}), and a file is of one. "
                "Search by the id of a sample, --to ID."
            )
        self._inputs = table.inputs
        self._encoder = encoder.to(pick_device(device))
        # What the table says of itself is checked once, here.
        used = table.provenance["normalisation"]
        self._statistics = TypeAdapter(dict[str, tuple[BandStatistics, ...]]).validate_python(used)
        self._settings = EmbedSettings.model_validate(table.provenance["settings"])

    def embed(self, path: Path) -> NDArray[np.float32]:
        """The vector of a file.

        Args:
            path: GeoTIFF, PNG or JPEG with all bands of the sensor in its order, or with those that the encoder is
                shown.

        Returns:
            Shape ``(features,)``, as :attr:`EmbeddingTable.joined` has them.

        Raises:
            SampleError: The file cannot be read, or has other bands.
        """
        whole = self._card.sensors[self._key]
        header = read_header(path)
        count = header.count - bool(header.alpha)
        held = whole.select(*self._bands) if count == len(self._bands) != len(whole.bands) else whole
        pixels = StackReader(path.parent, held).read(path.name, tuple(range(len(held.bands))), None)
        archive = ArrayArchive({self._key: pixels[None]}, {self._key: held}, [path.stem])
        normaliser = Normaliser(archive.sensors, self._statistics)
        made = embed(self._encoder, self._card, archive, self._inputs, normaliser, self._settings)
        return np.asarray(made.joined[0])


def _check_same(table: EmbeddingTable, card: EncoderCard, run: Path) -> None:
    """Refuse vectors that another encoder made, or that the encoder alone does not make."""
    facts = table.provenance
    if not {"emb:model", "normalisation", "settings"} <= set(facts):
        raise ConfigError("The embeddings do not say how they were made, so no file can be embedded likewise.")
    if facts["emb:model"].get("weights_sha256") != card.weights_sha256:
        raise ConfigError(
            f"{run} is not the encoder that made the embeddings ({facts['emb:model'].get('recipe')}, another hash of "
            "its weights): vectors of two encoders cannot be compared. Name that run, or embed the archive anew."
        )
    if "batch_norms" in facts:
        raise ConfigError(
            f"The batch norms of these vectors were {facts['batch_norms']}, so a file alone cannot be embedded "
            "likewise. Embed the archive without --statistics archive, or search by the id of a sample, --to ID."
        )
