"""Several processes that train one network together, each on its share of every batch, to the result of one process.

torchrun starts them; a program that it did not start is a lone process, for which all of this does nothing. Knows no
loss, no optimizer and no command line.
"""

import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from .errors import TrainingError

__all__ = ["AnotherProcessFailed", "Processes", "joined_processes", "present_processes"]

_T = TypeVar("_T")


class AnotherProcessFailed(TrainingError):
    """Another process of the run failed before this one: that one tells the user."""


@dataclass(frozen=True)
class Processes:
    """All processes of the run, as one of them sees them: ``rank`` of ``size``.

    Every method but ``share`` is collective: all processes call it, in the same order.

    Raises:
        TrainingError: another process ended while this one waited for it.
    """

    rank: int = 0
    size: int = 1

    def share(self, n: int) -> slice:
        """Returns which of n items are this process's: a run of n / size, rounded up or down; perhaps none."""
        return slice(n * self.rank // self.size, n * (self.rank + 1) // self.size)

    def gather(self, own: Tensor, n: int) -> Tensor:
        """Returns the rows of all processes ``(n, ...)``, each of which gives its share; only own rows have a gradient.

        A loss of these rows, computed alike everywhere, has the whole gradient once the processes' parts are added.
        """
        if self.size == 1:
            return own
        share = self.share(n)
        rows = own.new_zeros(n, *own.shape[1:])
        rows[share] = own.detach()
        self.add_up(rows)
        return torch.cat([rows[: share.start], own, rows[share.stop :]])

    def add_up(self, tensor: Tensor) -> Tensor:
        """Replaces the tensor by the sum over all processes, and returns it."""
        if self.size > 1:
            with _peers_needed():
                dist.all_reduce(tensor)
        return tensor

    def add_up_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replaces the gradients by their sums over all processes."""
        gradients = [p.grad for p in parameters if p.grad is not None]
        if self.size == 1 or not gradients:
            return
        # One message: a network has hundreds of small tensors.
        flat = self.add_up(torch.cat([gradient.reshape(-1) for gradient in gradients]))
        for gradient, total in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
            gradient.copy_(total.view_as(gradient))

    @torch.no_grad()
    def copy_from_first(self, *modules: nn.Module) -> None:
        """Gives parameters and buffers the values that they have in the first process."""
        if self.size == 1:
            return
        for tensor in (tensor for module in modules for tensor in module.state_dict().values()):
            values = tensor.contiguous()
            with _peers_needed():
                dist.broadcast(values, 0)
            tensor.copy_(values)

    def of_first(self, value: _T) -> _T:
        """Returns the value that was given in the first process."""
        if self.size == 1:
            return value
        box = [value]
        with _peers_needed():
            dist.broadcast_object_list(box, 0)
        return box[0]


def present_processes() -> Processes:
    """Returns the processes that were joined before (torch's default process group), or the lone one."""
    if dist.is_available() and dist.is_initialized():
        return Processes(dist.get_rank(), dist.get_world_size())
    return Processes()


@contextmanager
def joined_processes() -> Iterator[Processes]:
    """Joins the processes that torchrun started: over NCCL with a GPU for each, or over gloo on CPUs.

    torch's default process group is theirs while this lasts. A process that fails leaves; the others notice when they
    next wait for it.

    Raises:
        TrainingError: this machine has fewer GPUs than processes.
        AnotherProcessFailed: in place of any error after the first in the run, which mostly follows from it.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield Processes()
        return
    store, rank, size = next(iter(dist.rendezvous("env://")))  # type: ignore[attr-defined]
    try:
        backend = _prepared_backend(int(os.environ.get("LOCAL_WORLD_SIZE", "1")) == size)
        own = dist.PrefixStore("group", store)  # type: ignore[attr-defined]
        dist.init_process_group(backend, store=own, rank=rank, world_size=size)
        try:
            yield Processes(rank, size)
        except BaseException:
            if backend == "gloo":  # NCCL would wait here for what the others never do; torchrun ends them
                dist.destroy_process_group()
            raise
        dist.destroy_process_group()
    except BaseException as error:
        if not _is_first_failure(store):
            raise AnotherProcessFailed("another process of the run failed first, and says why") from error
        raise


def _prepared_backend(on_one_machine: bool) -> str:
    if not torch.cuda.is_available():
        if on_one_machine and sys.platform == "linux":
            os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")  # what they say to each other stays on the machine
        return "gloo"
    local_rank, n_gpus = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
    if local_rank >= n_gpus:
        raise TrainingError(
            f"there are more processes than the {n_gpus} GPUs of this machine: use --nproc-per-node {n_gpus}, or hide "
            f"them by CUDA_VISIBLE_DEVICES= to train on CPUs"
        )
    torch.cuda.set_device(local_rank)
    return "nccl"


def _is_first_failure(store: Any) -> bool:
    try:
        return store.add("failures", 1) == 1
    except RuntimeError:  # the process that kept the store is gone
        return False


@contextmanager
def _peers_needed() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        raise TrainingError(
            "another process of the run ended or is out of reach (out of memory?): begin again, and training goes on "
            "from its last checkpoint"
        ) from error
