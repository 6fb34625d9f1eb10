# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Several processes at one training, forked from the test."""

import multiprocessing
from pathlib import Path

import torch
from limits import HANGS


def by_processes(count, train, folder):
    """Return the state that train(), run by so many processes at once, gives in the first."""
    folder = Path(folder) / f'by_{count}'
    folder.mkdir(parents=True)
    context = multiprocessing.get_context('fork')
    workers = [
        context.Process(target=_work, args=(rank, count, train, folder)) for rank in range(count)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(HANGS)
    assert [worker.exitcode for worker in workers] == [0] * count
    return torch.load(folder / 'state.pt')


def _work(rank, count, train, folder):
    torch.set_num_threads(1)
    if count > 1:
        torch.distributed.init_process_group(
            'gloo', init_method=f'file://{folder / "meet"}', rank=rank, world_size=count
        )
    state = train()
    if rank == 0:
        torch.save(state, folder / 'state.pt')
    if count > 1:
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()
