"""Encoders as programs that need neither timm nor terrasieve: torch.export's ``.pt2``, and ONNX.

They take pixels in the unit of the bands, any number of samples at once, and do the preprocessing themselves. What the
channels are stands in the file: in a ``.pt2`` as the extra file :data:`INTERFACE`, in ONNX as metadata of that name.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable

import torch
from torch import Tensor
from torch.export import Dim, ExportedProgram, export, load, save

from terrasieve.errors import ConfigError
from terrasieve.exports.prepared import PreparedEncoder

INTERFACE = "terrasieve.json"
PIXELS, FEATURES = "pixels", "features"
"""Names of input and output."""
FARTHEST = 1e-3
"""Of two vectors, the largest difference over their largest number that is still taken for rounding."""
_MOST_BYTES = 2**31 - 1
"""An ONNX file holds no more; beyond, weights lie in further files."""


def torch_program(prepared: PreparedEncoder) -> bytes:
    """The content of a ``.pt2`` file, which ``torch.export.load(path).module()(pixels)`` runs.

    Args:
        prepared: The encoder with its preprocessing.

    Raises:
        ConfigError: torch.export cannot record the network, or what it recorded computes something else.
    """
    content = io.BytesIO()
    with warnings.catch_warnings():
        # One for each tensor that shares memory with others, which is no concern on the CPU.
        warnings.simplefilter("ignore")
        save(_recorded(prepared), content, extra_files={INTERFACE: _interface(prepared)})
        content.seek(0)
        program = load(content).module()
    _check(prepared, program, ".pt2")
    return content.getvalue()


def onnx_program(prepared: PreparedEncoder) -> bytes:
    """The content of an ``.onnx`` file with input ``pixels`` and output ``features``.

    Args:
        prepared: The encoder with its preprocessing.

    Raises:
        ConfigError: The packages of the extra ``onnx`` are missing, the network cannot be recorded or is too large for
            one file, or what was recorded computes something else.
    """
    try:
        import onnxruntime
        import onnxscript  # noqa: F401  # torch's exporter asks for it
    except ImportError as error:
        raise ConfigError(
            f"ONNX needs packages that are not installed ({error}): pip install 'terrasieve[onnx]'."
        ) from error
    recorded = _recorded(prepared)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = torch.onnx.export(recorded, dynamo=True, input_names=[PIXELS], output_names=[FEATURES], verbose=False)
    if made is None:
        raise ConfigError(f"torch {torch.__version__} gives no ONNX program: install torch 2.6 or later.")
    model = made.model_proto
    model.metadata_props.add(key=INTERFACE, value=_interface(prepared))
    if model.ByteSize() > _MOST_BYTES:
        raise ConfigError("The network is larger than the 2 GiB that one ONNX file holds. Take --format torch.")
    content: bytes = model.SerializeToString()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    _check(prepared, lambda pixels: torch.from_numpy(session.run(None, {PIXELS: pixels.numpy()})[0]), "ONNX")
    return content


def _interface(prepared: PreparedEncoder) -> str:
    return prepared.interface("inside").model_dump_json(indent=1)


def _recorded(prepared: PreparedEncoder) -> ExportedProgram:
    try:
        # Not one sample, for which torch would record a program of its own.
        return export(prepared, (prepared.example(2),), dynamic_shapes={PIXELS: {0: Dim("batch")}})
    # Whatever it stumbles on, there is no common class, and what it says is for its developers.
    except Exception as error:
        raise ConfigError(
            f"torch.export cannot record {prepared.card.backbone.name}: {type(error).__name__}: "
            f"{str(error).strip().splitlines()[0] if str(error).strip() else ''} Take --format timm."
        ) from error


def _check(prepared: PreparedEncoder, program: Callable[[Tensor], Tensor], form: str) -> None:
    """Run what was written, on one sample and on several, beside the network itself."""
    with torch.inference_mode():
        for samples in (1, 3):
            pixels = prepared.example(samples)
            expected = prepared(pixels)
            apart = float((program(pixels) - expected).abs().max() / expected.abs().max())
            if not apart <= FARTHEST:
                raise ConfigError(
                    f"The {form} program of {prepared.card.backbone.name} gives features that are off by {apart:.1e} "
                    "of the largest, so nothing was written. Take --format timm."
                )
