"""Depthwise convolutions that train fast in bfloat16 on a CPU.

oneDNN, which torch calls, is quick at the forward pass in bfloat16 and at the weights' gradient of 3 x 3 kernels, but
slow at that of 5 x 5 and at the images' gradient of strided ones. So both are written by what it is quick at: a 5 x 5
gradient is that of four overlapping 3 x 3 windows, and the images' gradient is a forward pass of the output's gradient,
spread out by the stride, with the kernel turned round. ``benchmarks.fine_tuning`` measures it.
"""

from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["depthwise_conv2d", "use_fast_depthwise"]


def depthwise_conv2d(
    images: Tensor, weight: Tensor, bias: Tensor | None, stride: tuple[int, int], padding: tuple[int, int]
) -> Tensor:
    """Returns ``conv2d(images, weight, bias, stride, padding, groups=C)`` of ``(B, C, H, W)`` and ``(C, 1, k, k)``."""
    return _DepthwiseConv2d.apply(images, weight, bias, stride, padding)


def use_fast_depthwise(network: nn.Module) -> None:
    """Lets the network's depthwise convolutions run so under bfloat16 autocast on a CPU; elsewhere nothing changes."""
    for module in network.modules():
        if (
            isinstance(module, nn.Conv2d)
            and module.groups == module.in_channels == module.out_channels > 1
            and module.kernel_size in ((3, 3), (5, 5))
            and module.dilation == (1, 1)
            and module.padding_mode == "zeros"
            and not isinstance(module.padding, str)
        ):
            module.__class__ = _fast(type(module))  # type: ignore[arg-type]


@cache
def _fast(kind: type[nn.Conv2d]) -> type[nn.Conv2d]:
    """Returns the class of convolutions of this kind that take the fast way where there is one."""
    from timm.layers.conv2d_same import Conv2dSame
    from timm.layers.padding import pad_same

    class FastDepthwise(kind):  # type: ignore[misc, valid-type]
        def forward(self, images: Tensor) -> Tensor:
            device = images.device.type
            if device != "cpu" or not torch.is_autocast_enabled(device):
                return super().forward(images)
            dtype, padding = torch.get_autocast_dtype(device), self.padding
            if isinstance(self, Conv2dSame):  # which pads as TensorFlow does, by the size of the images
                images, padding = pad_same(images, self.kernel_size, self.stride, self.dilation), (0, 0)
            with torch.autocast(device, enabled=False):
                bias = None if self.bias is None else self.bias.to(dtype)
                return depthwise_conv2d(images.to(dtype), self.weight.to(dtype), bias, self.stride, padding)

    return FastDepthwise


class _DepthwiseConv2d(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        images: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        stride: tuple[int, int],
        padding: tuple[int, int],
    ) -> Tensor:
        images = images.contiguous(memory_format=torch.channels_last)
        ctx.save_for_backward(images, weight)
        ctx.stride, ctx.padding = stride, padding
        return torch.conv2d(images, weight, bias, stride, padding, 1, len(weight))

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        images, weight = ctx.saved_tensors
        gradient = gradients[0].contiguous(memory_format=torch.channels_last)
        of_images = of_weight = of_bias = None
        if ctx.needs_input_grad[0]:
            of_images = _images_gradient(gradient, images, weight, ctx.stride, ctx.padding)
        if ctx.needs_input_grad[1]:
            padded = nn.functional.pad(images, (ctx.padding[1], ctx.padding[1], ctx.padding[0], ctx.padding[0]))
            of_weight = _weight_gradient(gradient, padded, weight, ctx.stride)
        if ctx.needs_input_grad[2]:
            of_bias = gradient.sum((0, 2, 3), dtype=torch.promote_types(gradient.dtype, torch.float32)).to(weight.dtype)
        return of_images, of_weight, of_bias, None, None


def _images_gradient(
    gradient: Tensor, images: Tensor, weight: Tensor, stride: tuple[int, int], padding: tuple[int, int]
) -> Tensor:
    kernel = weight.shape[-1]
    if stride != (1, 1):
        size = [images.shape[axis + 2] + 2 * padding[axis] - kernel + 1 for axis in (0, 1)]
        spread = torch.zeros(*gradient.shape[:2], *size, dtype=gradient.dtype)
        spread = spread.contiguous(memory_format=torch.channels_last)
        spread[:, :, :: stride[0], :: stride[1]] = gradient
        gradient = spread
    rest = (kernel - 1 - padding[0], kernel - 1 - padding[1])
    if min(rest) < 0:
        raise ValueError(f"padding {padding} is wider than a kernel of {kernel} can reach")
    return torch.conv2d(gradient, weight.flip(2, 3), None, 1, rest, 1, len(weight))


def _weight_gradient(gradient: Tensor, padded: Tensor, weight: Tensor, stride: tuple[int, int]) -> Tensor:
    window = weight[:, :, :3, :3]
    height, width = ((gradient.shape[axis + 2] - 1) * stride[axis] + 3 for axis in (0, 1))
    result = torch.empty_like(weight)
    starts = (0,) if weight.shape[-1] == 3 else (0, 2)  # of the windows, which share the middle row and column
    for top in starts:
        for left in starts:
            part = padded[:, :, top : top + height, left : left + width]
            result[:, :, top : top + 3, left : left + 3] = torch.ops.aten.convolution_backward(
                gradient, part.contiguous(memory_format=torch.channels_last), window, None, stride, (0, 0), (1, 1),
                False, (0, 0), len(weight), (False, True, False),
            )[1]  # fmt: skip
    return result
