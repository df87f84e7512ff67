"""What `embed --dense` does: maps of vectors of whole scenes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from terrasieve.console import console

if TYPE_CHECKING:
    from terrasieve.archive.archive_options import ArchiveOptions
    from terrasieve.embeddings.quantising import Quantise


@dataclass(frozen=True)
class MapRequest:
    """What `embed --dense` was asked for; see its options.

    Attributes:
        run: Folder of the run or encoder.
        data: What names the scenes.
        out: The store or file to write.
        options: How the scenes are read; its tile and stride are those of the map.
        inputs: Bands to show the encoder; the first that fit where empty.
        statistics: Whose statistics pixels are standardised by.
        quantise: How vectors are stored; float32 when None.
        picture: Whether the picture alone is written.
        batch_size: Tiles per forward pass; the default when None.
        overwrite: Whether what is there may be replaced.
        device: Where to compute.
    """

    run: Path
    data: str
    out: str
    options: ArchiveOptions
    inputs: tuple[str, ...]
    statistics: Literal["encoder", "archive"]
    quantise: Quantise | None
    picture: bool
    batch_size: int | None
    overwrite: bool
    device: str

    def write(self) -> None:
        """Make the maps.

        Raises:
            TerrasieveError: As the functions of ``terrasieve.embeddings.scene_maps`` do.
        """
        from terrasieve.archive.scenes.whole_scene import whole_scenes
        from terrasieve.device import pick_device
        from terrasieve.embeddings.scene_maps.dense_cells import DenseSettings
        from terrasieve.embeddings.scene_maps.making import check_output, dense_job, write_maps
        from terrasieve.errors import ConfigError
        from terrasieve.files.object_store import is_address
        from terrasieve.models.export import load_encoder
        from terrasieve.probes.results import members_named

        if is_address(self.out):
            raise ConfigError(f"--out {self.out}: maps are written to this machine. Copy what was made to the address.")
        if self.options.edge is not None:
            raise ConfigError(f"--edge {self.options.edge}: a dense map covers all of a scene. Leave --edge out.")
        out = Path(self.out)
        check_output(out, self.quantise, self.picture)
        asked = {"stride": self.options.stride, "tile": self.options.tile, "batch_size": self.batch_size}
        settings = DenseSettings(**{name: value for name, value in asked.items() if value is not None})
        with _held(out, self.overwrite):
            encoder, card = load_encoder(self.run)
            scenes = whole_scenes(replace(self.options, tile=None, stride=None).spec(self.data), self.data)
            members = members_named(self.inputs, scenes[0].sensors, encoder.channels)
            console.print(
                f"Inputs: {', '.join(map(str, members))}; standardised by the {self.statistics}'s statistics",
                highlight=False,
            )
            encoder = encoder.to(pick_device(self.device))
            job = dense_job(encoder, card, *scenes, members, self.statistics, settings)
            write_maps(out, job, self.quantise, self.picture)
        rows, columns, features = job.maps[0].shape
        more = f", the first of {len(job.maps)} scenes" if len(job.maps) > 1 else ""
        what = "Picture" if self.picture else "Map"
        console.print(f"{what}: {out}  {rows} x {columns} cells of {features} numbers{more}", highlight=False)


@contextmanager
def _held(out: Path, overwrite: bool) -> Iterator[None]:
    """Hold the place of a store of maps, or of a file."""
    from terrasieve.archive.cubes.guarded_opening import is_zarr
    from terrasieve.embeddings.scene_maps.making import RASTERS
    from terrasieve.errors import WriteError
    from terrasieve.files.outputs import hold_file, hold_folder

    if out.suffix.lower() in RASTERS:
        with hold_file(out, RASTERS, overwrite):
            yield
        return
    with hold_folder(out):
        if out.is_dir() and not overwrite:
            raise WriteError(f"{out} is already there. Replace it with --overwrite, or choose another name.")
        if out.is_dir() and not is_zarr(out) and any(out.iterdir()):
            raise WriteError(f"{out} holds something else than a Zarr store, and is not replaced. Choose another name.")
        yield
