"""An exported encoder written in another form, with a STAC item beside it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, get_args

from terrasieve.console import track
from terrasieve.embeddings.inputs import EncoderInput
from terrasieve.errors import ConfigError, WriteError, nearest
from terrasieve.exports.model_item import model_item
from terrasieve.exports.prepared import ModelInterface, PreparedEncoder, prepare_encoder
from terrasieve.files.outputs import hold_files, hold_folder
from terrasieve.files.writing import write_together
from terrasieve.models.export import encoder_files, load_encoder

ExportFormat = Literal["timm", "transformers", "torch", "onnx"]
FORMATS: tuple[str, ...] = get_args(ExportFormat)
ITEM = "item.json"
"""Name of the STAC item in a folder; beside a file it is the end of the item's name."""

_SAFETENSORS = {"type": "application/octet-stream", "mlm:artifact_type": "safetensors.torch.save_file"}
_TORCH = {"type": "application/octet-stream; application=pytorch", "mlm:artifact_type": "torch.export.save"}
_ONNX = {"type": "application/octet-stream; application=onnx", "mlm:artifact_type": "torch.onnx.export"}


@dataclass(frozen=True)
class ExportReport:
    """What was written.

    Attributes:
        path: The file or folder.
        item: The STAC item that describes it.
        interface: What the model takes and gives.
        size: Bytes of the model's file.
    """

    path: Path
    item: Path
    interface: ModelInterface
    size: int

    def summary(self) -> str:
        """What a caller of the model has to know, in one line."""
        face = self.interface
        bands = ", ".join(f"{band.name} ({band.unit})" for band in face.bands)
        standardised = "" if face.applied == "inside" else ", standardised as the item says"
        return (
            f"Takes (n, {len(face.bands)}, {face.size}, {face.size}) of {face.bands[0].sensor}: {bands}{standardised}; "
            f"gives (n, {face.features})."
        )


def export_encoder(
    run: Path,
    out: Path,
    form: ExportFormat,
    shown: EncoderInput | None = None,
    size: int | None = None,
    overwrite: bool = False,
) -> ExportReport:
    """Write an encoder in another form.

    ``timm`` and ``transformers`` make a folder, which these libraries load by its name and whose input the caller
    standardises. ``torch`` and ``onnx`` make a file with preprocessing inside, for any number of samples.

    Args:
        run: A run folder with an exported encoder, or the encoder's own folder.
        out: The folder; for ``torch`` a file ``.pt2``, for ``onnx`` one ``.onnx``.
        form: The form.
        shown: The bands that fill the encoder's channels; the first that fit when None.
        size: Height and width of the input in pixels; those of the views that it was trained on when None.
        overwrite: Whether files that are there may be replaced.

    Raises:
        BandError: The encoder was not trained on these bands, or takes another number of them.
        CheckpointError: There is no encoder, or a file is damaged.
        ConfigError: The size or the network does not suit the form.
        WriteError: Something is there already, or the system refused it.
    """
    if form not in FORMATS:
        raise ConfigError(f"There is no format {form!r}.{nearest(form, FORMATS)}")
    with _held(out, form, overwrite):
        encoder, card = load_encoder(run)
        prepared = prepare_encoder(encoder, card, shown, size)
        # Only then are libraries imported that take seconds.
        files = _files(run, prepared, form)
        interface = prepared.interface("inside" if form in ("torch", "onnx") else "before")
        name, content = next(iter(files.items()))
        item = out / ITEM if name else out.with_name(f"{out.name}.{ITEM}")
        described = item_of(interface, name or out.name, content, form)
        written = {out / name if name else out: part for name, part in files.items()}
        write_together({**written, item: json.dumps(described, indent=1).encode()})
    return ExportReport(out, item, interface, len(content))


def item_of(interface: ModelInterface, name: str, content: bytes, form: ExportFormat) -> dict[str, Any]:
    """The STAC item of a model's file, as of now.

    Args:
        interface: What the model takes and gives.
        name: Name of the file, beside which the item lies.
        content: What the file holds.
        form: Its form.
    """
    asset = {
        "href": f"./{name}",
        **{"torch": _TORCH, "onnx": _ONNX}.get(form, _SAFETENSORS),
        "file:size": len(content),
        # As the file extension writes it: a multihash, of which the first two bytes say SHA-256 of 32 bytes.
        "file:checksum": f"1220{hashlib.sha256(content).hexdigest()}",
    }
    return model_item(interface, asset, datetime.now(UTC).replace(microsecond=0))


def _files(run: Path, prepared: PreparedEncoder, form: ExportFormat) -> Mapping[str, bytes]:
    """The content of each file by its name in the folder, the weights first; without a name the file itself."""
    if form == "timm":
        return encoder_files(run)
    if form == "transformers":
        from terrasieve.exports.transformers_folder import transformers_folder

        return transformers_folder(prepared)
    from terrasieve.exports.programs import onnx_program, torch_program

    make = torch_program if form == "torch" else onnx_program
    (content,) = [make(prepared) for _ in track([form], f"Recording the network for {form}", total=1)]
    return {"": content}


@contextmanager
def _held(out: Path, form: ExportFormat, overwrite: bool) -> Iterator[None]:
    if form in ("torch", "onnx"):
        with hold_files((out,), (".pt2",) if form == "torch" else (".onnx",), overwrite):
            yield
        return
    with hold_folder(out):
        if out.is_dir() and any(out.iterdir()) and not overwrite:
            raise WriteError(
                f"{out} is already there and not empty. Replace what it holds of a model with --overwrite, or choose "
                "another name."
            )
        yield
