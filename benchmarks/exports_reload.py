"""Reload exports as somebody does who has never heard of terrasieve, and write the features that they give.

Usage: ``python exports_reload.py FOLDER FORMAT...``, in a process of its own. FOLDER holds ``pixels.npy`` in the unit
of the bands and, of each FORMAT, what ``terrasieve export`` wrote; ``FORMAT.npy`` is written there.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

NAMES = {"timm": "timm", "transformers": "transformers", "torch": "model.pt2", "onnx": "model.onnx"}
"""Of each format the name of its file or folder."""


def main() -> None:
    # Every import of it fails from here on, also where it is installed.
    sys.modules["terrasieve"] = None  # type: ignore[assignment]
    folder, formats = Path(sys.argv[1]), sys.argv[2:]
    pixels = np.load(folder / "pixels.npy")
    for form in formats:
        path = folder / NAMES[form]
        if form == "onnx":
            found = by_onnx(path, pixels)
        else:
            load_torchvision()
            found = {"timm": by_timm, "transformers": by_transformers, "torch": by_torch}[form](path, pixels)
        np.save(folder / f"{form}.npy", found)


def by_onnx(path: Path, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"pixels": pixels})[0])


def by_torch(path: Path, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    import torch

    return features(torch.export.load(path).module(), pixels)


def by_timm(path: Path, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    import timm

    return features(timm.create_model(f"local-dir:{path}", pretrained=True).eval(), standardised(path, pixels))


def by_transformers(path: Path, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    from transformers import AutoModel

    model = AutoModel.from_pretrained(path, trust_remote_code=False).eval()
    return features(lambda one: model(one).pooler_output.flatten(1), standardised(path, pixels))


def standardised(folder: Path, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    """What the STAC item says is to be done to pixels."""
    said = json.loads((folder / "item.json").read_text())["properties"]["mlm:input"][0]
    ranges = said["pre_processing_function"]["expression"]
    low, high, mean, deviation = (
        np.array(numbers, dtype=np.float32)[:, None, None]
        for numbers in (
            ranges["minimum"],
            ranges["maximum"],
            [one["mean"] for one in said["value_scaling"]],
            [one["stddev"] for one in said["value_scaling"]],
        )
    )
    return np.nan_to_num((np.clip(pixels, low, high) - mean) / deviation)


def features(model: Any, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    import torch

    with torch.inference_mode():
        return np.asarray(model(torch.from_numpy(pixels)).numpy())


def load_torchvision() -> None:
    """Import it also where its compiled operators are of another build than torch, since timm imports it."""
    import torch

    try:
        import torchvision  # noqa: F401
    except RuntimeError:
        for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
            del sys.modules[name]
        library = torch.library.Library("torchvision", "DEF")
        library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        torch.terrasieve_schemas = library  # type: ignore[attr-defined]  # they live as long as the object


if __name__ == "__main__":
    main()
