"""Views that a backbone cannot cut into whole patches are refused."""

from __future__ import annotations

import pytest

from terrasieve.errors import ConfigError
from terrasieve.models.backbone import BackboneSpec, build_encoder, check_sizes


@pytest.mark.parametrize(("size", "proposed"), [(30, 32), (17, 16), (7, 16), (65, 64)])
def test_a_size_that_is_no_multiple_of_the_patch_is_refused(size: int, proposed: int) -> None:
    encoder = build_encoder(BackboneSpec(name="test_vit"), seed=0)
    message = rf"'local' is {size} pixels wide, .* patches of 16 pixels. Set views.branches.local.size={proposed},"
    with pytest.raises(ConfigError, match=message):
        check_sizes(encoder, {"global": 64, "local": size})


def test_whole_patches_and_networks_without_patches_take_what_they_are_given() -> None:
    check_sizes(build_encoder(BackboneSpec(name="test_vit"), seed=0), {"global": 64, "local": 16})
    check_sizes(build_encoder(BackboneSpec(name="test_resnet"), seed=0), {"global": 33, "local": 7})
