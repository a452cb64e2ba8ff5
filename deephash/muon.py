"""Muon: momentum whose update of a matrix is orthogonalised; what is no matrix follows AdamW. No training loop here."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from .inference import has_fast_bf16

__all__ = ["Muon", "orthogonalise"]


class Muon(torch.optim.Optimizer):
    """Orthogonalised Nesterov momentum for the groups with ``orthogonal=True``, AdamW for the others.

    A convolution counts as the matrix ``(out, in * height * width)``. Its weights are scaled to norm ``sqrt(out)``
    before each step, and the step has about that norm times ``lr`` (for a matrix no taller than wide), so ``lr`` is
    relative to the weights, and the scale of the loss does not matter. Use it for layers that a batch norm follows.

    Args:
        groups: ``params``, ``lr``, ``weight_decay`` (AdamW only) and ``orthogonal``.
        momentum: of the orthogonal groups.
        betas: of AdamW.

    Source: Jordan et al., "Muon: an optimizer for hidden layers in neural networks", 2024; the scaling of the weights
    as in the CIFAR-10 trainings there (momentum 0.6, lr 0.24 at batches of 2,000).
    """

    def __init__(
        self, groups: Iterable[dict[str, Any]], *, momentum: float = 0.6, betas: tuple[float, float] = (0.9, 0.99)
    ) -> None:
        defaults = {"lr": 1e-3, "weight_decay": 0.0, "orthogonal": False, "momentum": momentum, "betas": betas}
        super().__init__(groups, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """Moves the parameters by their gradients."""
        assert closure is None, "no closures"
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    move = _orthogonal_step if group["orthogonal"] else _adam_step
                    move(parameter, parameter.grad, self.state[parameter], group)


def orthogonalise(matrix: Tensor, steps: int = 4) -> Tensor:
    """Returns a matrix with the singular vectors of this one and singular values of about 1 (0.7 to 1.2).

    By a Newton-Schulz iteration of fifth degree, in bfloat16 where the device computes in it: others imitate it at a
    hundredth of their speed. ``matrix``: ``(m, n)`` float. Singular values far below the largest may stay smaller.
    """
    x = matrix.bfloat16() if has_fast_bf16(matrix.device) else matrix.float()
    tall = x.shape[0] > x.shape[1]
    x = x.T if tall else x
    x = x / (x.norm() + 1e-7)
    for _ in range(steps):
        gram = x @ x.T
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return x.T if tall else x


def _orthogonal_step(parameter: Tensor, gradient: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
    if not state:
        state["momentum"] = torch.zeros_like(parameter)
    momentum = state["momentum"].mul_(group["momentum"]).add_(gradient)
    direction = gradient.add(momentum, alpha=group["momentum"])
    update = orthogonalise(direction.reshape(len(direction), -1)).view(direction.shape)
    parameter.mul_(len(parameter) ** 0.5 / parameter.norm())
    parameter.add_(update, alpha=-group["lr"])


def _adam_step(parameter: Tensor, gradient: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
    if not state:
        state["step"] = torch.zeros(())
        state["mean"], state["square"] = torch.zeros_like(parameter), torch.zeros_like(parameter)
    first, second = group["betas"]
    state["step"] += 1
    step = float(state["step"])
    mean = state["mean"].lerp_(gradient, 1 - first)
    square = state["square"].lerp_(gradient.square(), 1 - second)
    parameter.mul_(1 - group["lr"] * group["weight_decay"])
    denominator = (square / (1 - second**step)).sqrt_().add_(1e-8)
    parameter.addcdiv_(mean / (1 - first**step), denominator, value=-group["lr"])
