"""Batch norm over the shares of a batch that several processes hold: the statistics and gradients of the whole batch.

torch has this for GPUs only.
"""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from .distributed import Processes

__all__ = ["whole_batch_norm"]


def whole_batch_norm(processes: Processes) -> AbstractContextManager[object]:
    """While it lasts, batch norms in training mode normalise by the mean and variance over all processes' shares.

    Collective: in all processes the same network runs, forwards and backwards. A share may be empty. The gradients of
    weight and bias are the process's own part, to be added up like all others.
    """
    return _WholeBatchNorm(processes) if processes.size > 1 else nullcontext()


class _WholeBatchNorm(TorchFunctionMode):
    """Takes the place of ``batch_norm``, whichever module calls it: torch's, timm's, torchvision's."""

    def __init__(self, processes: Processes) -> None:
        super().__init__()
        self.processes = processes

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is F.batch_norm:
            return self._batch_norm(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))

    def _batch_norm(
        self,
        input: Tensor,
        running_mean: Tensor | None,
        running_var: Tensor | None,
        weight: Tensor | None = None,
        bias: Tensor | None = None,
        training: bool = False,
        momentum: float = 0.1,
        eps: float = 1e-5,
    ) -> Tensor:
        if not training:
            return F.batch_norm(input, running_mean, running_var, weight, bias, False, momentum, eps)
        mean, var, n = self._statistics(input.detach())
        if running_mean is not None and running_var is not None:
            running_mean.lerp_(mean.to(running_mean.dtype), momentum)
            running_var.lerp_((var * n / (n - 1).clamp(min=1)).to(running_var.dtype), momentum)
        return _Normalise.apply(input, weight, bias, mean, var, n, eps, self.processes)

    def _statistics(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Returns mean and variance (C,) over the batches of all processes, and how many values a channel has (1,)."""
        x = _precise(x)
        n_channels = x.shape[1]
        mine = x.new_zeros(2 * n_channels + 1)
        if x.numel():
            var, mean = torch.var_mean(x, _all_but_channels(x), correction=0)
            mine = torch.cat([mean, var, mean.new_full((1,), x.numel() // n_channels)])
        rows = x.new_zeros(self.processes.size, len(mine))
        rows[self.processes.rank] = mine
        means, variances, counts = self.processes.add_up(rows).split([n_channels, n_channels, 1], dim=1)
        n = counts.sum()
        mean = (means * counts).sum(0) / n
        # Within the processes and between them: nothing cancels, as it would in E[x^2] - E[x]^2.
        var = ((variances + (means - mean).square()) * counts).sum(0) / n
        return mean, var, n


class _Normalise(torch.autograd.Function):
    """Batch norm by a mean and variance that came from the input in all processes, as its gradient knows."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        mean: Tensor,
        var: Tensor,
        n: Tensor,
        eps: float,
        processes: Processes,
    ) -> Tensor:
        ctx.save_for_backward(x, weight, mean, (var + eps).rsqrt(), n)
        ctx.processes = processes
        return F.batch_norm(x, mean, var, weight, bias, False, 0.0, eps)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, scale, n = ctx.saved_tensors
        shape = [1, -1] + [1] * (x.ndim - 2)
        normal = (_precise(x) - mean.view(shape)) * scale.view(shape)
        grad = _precise(grad)
        dims = _all_but_channels(x)
        own = torch.stack([grad.sum(dims), (grad * normal).sum(dims)])
        total = ctx.processes.add_up(own.clone()) / n
        of_x = grad - total[0].view(shape) - normal * total[1].view(shape)
        of_x = of_x * (scale if weight is None else scale * weight).view(shape)
        _, learns_weight, learns_bias, *_ = ctx.needs_input_grad
        of_weight, of_bias = own[1] if learns_weight else None, own[0] if learns_bias else None
        return of_x.to(x.dtype), of_weight, of_bias, None, None, None, None, None


def _precise(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()


def _all_but_channels(x: Tensor) -> list[int]:
    return [0, *range(2, x.ndim)]
