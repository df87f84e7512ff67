"""Make torchvision importable where its compiled operators do not match the installed torch.

A CPU build of torch beside a CUDA build of torchvision fails on import with
``operator torchvision::nms does not exist``. Declaring the two schemas that the import asks for is
enough for models and transforms; the compiled operators themselves (``ops.nms``, ``io``) stay
unavailable. Where the two builds match, this does nothing.
"""

from __future__ import annotations

import sys

import torch


def _declare_missing_schemas() -> torch.library.Library:
    library = torch.library.Library("torchvision", "DEF")  # type: ignore[no-untyped-call]  # torch leaves it untyped
    library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")  # type: ignore[no-untyped-call]
    library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")  # type: ignore[no-untyped-call]
    return library


def _import_torchvision() -> torch.library.Library | None:
    try:
        import torchvision
    except RuntimeError as error:
        if "torchvision::nms" not in str(error):
            raise
        for name in [m for m in sys.modules if m == "torchvision" or m.startswith("torchvision.")]:
            del sys.modules[name]
        library = _declare_missing_schemas()
        import torchvision  # noqa: F401

        return library
    return None


# The schemas live only as long as the library object does.
_library = _import_torchvision()
