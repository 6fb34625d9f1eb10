# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
Several processes at one training, as torchrun starts them: which one this is, sums over all.

Outside `processes`, and without torchrun (no WORLD_SIZE in the environment), there is one process,
and everything here is free. Collective calls must come in the same order in all processes.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar
from uuid import uuid4

import torch
from torch import distributed

from ood_perception.errors import ConfigError

Item = TypeVar('Item')


def rank() -> int:
    """Return the number of this process, from 0."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def world() -> int:
    """Return how many processes there are."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def device() -> torch.device:
    """Return where this process computes: a GPU of its own, or the CPU."""
    if not torch.cuda.is_available():
        return torch.device('cpu')
    return torch.device('cuda', int(os.environ.get('LOCAL_RANK', '0')) % torch.cuda.device_count())


@contextmanager
def processes() -> Iterator[None]:
    """Join the other processes for the time of a command."""
    count = os.environ.get('WORLD_SIZE', '1')
    if count == '1':
        yield
        return
    patience = timedelta(days=7)  # where one dies, torchrun ends the others
    try:
        store, number, total = next(distributed.rendezvous('env://', timeout=patience))
        place = {'store': _meeting(store, number, total), 'rank': number, 'world_size': total}
        distributed.init_process_group('gloo', timeout=patience, **place)
    except (ValueError, RuntimeError) as error:
        raise ConfigError(
            f'WORLD_SIZE is {count}, and the other processes cannot be reached ({error}): start '
            'them by torchrun'
        ) from error
    try:
        yield
        barrier()
    finally:
        distributed.destroy_process_group()


def _meeting(store: Any, number: int, total: int) -> Any:
    """
    Return a part of torchrun's store that no earlier start of these processes has used.

    torchrun keeps the store when it starts them again, and they would take the addresses of the
    dead for each other's. What has a name that was just made up is of one that lives.
    """
    name = uuid4().hex
    if number:
        store.set(f'asked by {number}', name)
        name = store.get(f'answer to {name}').decode()
        store.set(f'{name} known to {number}', '')
    for other in range(1, total) if number == 0 else ():
        while not store.check([f'{name} known to {other}']):
            store.set(f'answer to {store.get(f"asked by {other}").decode()}', name)
            time.sleep(0.01)
    return distributed.PrefixStore(name, store)


def share(items: Sequence[Item]) -> Sequence[Item]:
    """Return this process's part of what all know: every world()-th, from rank() on."""
    return items[rank() :: world()]


def sum_over_all(tensors: Sequence[torch.Tensor]) -> None:
    """Replace float tensors, the same shapes everywhere, by their sums over all processes."""
    if world() == 1 or not tensors:
        return
    flat = torch.cat([tensor.detach().flatten() for tensor in tensors])
    distributed.all_reduce(flat)
    for tensor, part in zip(tensors, flat.split([t.numel() for t in tensors]), strict=True):
        tensor.detach().copy_(part.view_as(tensor))


class _Sum(torch.autograd.Function):
    """The sum over all processes; the gradient of it is that of the sum of all their losses."""

    @staticmethod
    def forward(_: Any, value: torch.Tensor) -> torch.Tensor:
        total = value.detach().clone(memory_format=torch.contiguous_format)
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(_: Any, gradient: torch.Tensor) -> torch.Tensor:
        return _Sum.forward(_, gradient)


def summed(value: torch.Tensor) -> torch.Tensor:
    """Return the sum over all processes, as a value that gradients go through."""
    if world() == 1:
        return value
    total: torch.Tensor = _Sum.apply(value)
    return total


def gathered(mine: torch.Tensor, count: int) -> torch.Tensor:
    """
    Return all processes' rows, (count, ...), in the order of what was shared; see share, summed.

    mine: those of this process, none where it has none.
    """
    if world() == 1:
        return mine
    rows = torch.arange(count, device=mine.device)[rank() :: world()]
    return summed(mine.new_zeros((count, *mine.shape[1:])).index_copy(0, rows, mine))


def mean_over_all(total: torch.Tensor, count: int) -> torch.Tensor:
    """Return the mean of what all processes summed, 0 of none; the gradient is times world()."""
    if world() == 1:
        return total / max(count, 1)
    numbers = torch.tensor([float(total.detach()), count], dtype=torch.float64)
    sum_over_all([numbers])
    mine = total * (world() / max(float(numbers[1]), 1.0))
    mean = numbers[0] / max(float(numbers[1]), 1.0)
    return mine + (mean.to(mine) - mine).detach()


def take_first(tensors: Iterable[torch.Tensor]) -> None:
    """Replace tensors, the same shapes everywhere, by those of the first process."""
    for tensor in tensors if world() > 1 else ():
        whole = tensor.detach().contiguous()
        distributed.broadcast(whole, 0)
        tensor.detach().copy_(whole)


def of_first(value: bool) -> bool:
    """Return what the first process says."""
    said = torch.tensor([value])
    take_first([said])
    return bool(said)


def barrier() -> None:
    """Wait for all processes."""
    if world() > 1:
        distributed.barrier()
