"""Multi-crop: which views of a sample are global, and which local (Caron et al. 2020, arXiv 2006.09882).

A global view shows most of a sample and is what others are compared with: a teacher sees the global views alone. A
local view shows a small part of it, mostly at fewer pixels, and is compared with global views only. Which is which says
a method's setting ``global_branches``: as many branches of the views, from the first, are global, and all others are
local. Global views therefore always come first.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from terrasieve.errors import ConfigError


class MultiCrop(NamedTuple):
    """How many views of a sample there are of either kind.

    Attributes:
        global_views: Number of global views, which are the first that a method is given; 2 or more.
        local_views: Number of local views, which are the others; 0 or more.
    """

    global_views: int
    local_views: int


def count_views(method: str, views: Sequence[int], global_branches: int) -> MultiCrop:
    """Global and local views, from the views of each branch.

    Args:
        method: Name by which errors call the method.
        views: How many views of a sample each branch of the recipe makes, in their order.
        global_branches: How many branches, from the first, are global; 1 or more.

    Raises:
        ConfigError: There are fewer branches than that, or fewer than two global views, of which none can be compared
            with another.
    """
    if global_branches > len(views):
        raise ConfigError(
            f"method.global_branches is {global_branches}, but the views have {len(views)} "
            f"branch{'es' if len(views) > 1 else ''}. Set method.global_branches={len(views)}, or add branches."
        )
    wide = sum(views[:global_branches])
    if wide < 2:
        raise ConfigError(
            f"{method} compares two or more global views of a sample, but was given {wide}. Here the first "
            f"{'branch' if global_branches == 1 else f'{global_branches} branches'} of the views make the global ones, "
            "and all others are local: set views.branches.0.count=2, let method.global_branches name more branches, or "
            f"take a recipe that was made for {method}."
        )
    return MultiCrop(wide, sum(views) - wide)
