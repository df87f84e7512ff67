"""Convolutions whose output is one pixel, computed as what they are: linear maps.

The last stage of a ResNet sees one pixel of a 32-pixel view, and a kernel of 3 by 3 then multiplies eight of nine
weights by padding. On the CPU, leaving these out halves the time of a training step at that size.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from terrasieve.models.replace_modules import replace_modules


class PixelConv2d(nn.Conv2d):
    """:class:`torch.nn.Conv2d` that spares multiplications by padding where its output is one pixel, on the CPU.

    The result is that of the convolution up to the order of summation; parameters and names are the same.
    """

    def forward(self, input: Tensor) -> Tensor:
        """The convolution of ``(n, in_channels, height, width)``."""
        covered = self._covered(input)
        if covered is None:
            return super().forward(input)
        rows, columns = covered
        (top, left) = (int(self.padding[0]), int(self.padding[1]))
        weight = self.weight[:, :, top : top + rows, left : left + columns]
        pixels = input[:, :, :rows, :columns]
        return functional.linear(pixels.flatten(1), weight.flatten(1), self.bias)[:, :, None, None]

    def _covered(self, input: Tensor) -> tuple[int, int] | None:
        """Rows and columns of the input under the kernel, where the output is one pixel; None otherwise."""
        plain = self.groups == 1 and self.dilation == (1, 1) and self.padding_mode == "zeros"
        if input.device.type != "cpu" or not plain or isinstance(self.padding, str):
            return None
        covered = []
        for size, kernel, pad, stride in zip(
            input.shape[-2:], self.kernel_size, self.padding, self.stride, strict=True
        ):
            if not 0 <= size + 2 * pad - kernel < stride:
                return None
            covered.append(min(size, kernel - pad))
        return covered[0], covered[1]


def spare_padding(model: nn.Module) -> None:
    """Replace a network's convolutions, in place; its state dict stays as it is."""
    replace_modules(model, {nn.Conv2d: PixelConv2d})
