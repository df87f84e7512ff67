"""Which image sizes a backbone takes."""

from __future__ import annotations

from collections.abc import Mapping

from terrasieve.errors import ConfigError
from terrasieve.models.backbone import Encoder


def check_sizes(encoder: Encoder, sizes: Mapping[str, int]) -> None:
    """Refuse views that a ViT cannot cut into whole patches.

    Args:
        encoder: Any; one that does not cut its input into patches takes every size.
        sizes: Height and width in pixels of each kind of view, by name.

    Raises:
        ConfigError: A size is no multiple of the patch size.
    """
    patch: tuple[int, int] | None = getattr(getattr(encoder.model, "patch_embed", None), "patch_size", None)
    if patch is None:
        return
    for name, size in sizes.items():
        if size % patch[0] or size % patch[1]:
            nearest = max(1, round(size / patch[0])) * patch[0]
            raise ConfigError(
                f"View {name!r} is {size} pixels wide, but the backbone cuts images into patches of {patch[0]} pixels. "
                f"Set views.branches.{name}.size={nearest}, or choose a backbone with other patches."
            )
