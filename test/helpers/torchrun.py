# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Miniature trainings by several processes of torchrun, and what they learned."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from limits import HANGS
from paths import ROOT
from safetensors.torch import load_file


def start(recipe, out, processes, *words, stage='train', restarts=0):
    """Start a training by so many processes, with a cache of their own; the log is beside it."""
    command = [sys.executable, '-m', 'torch.distributed.run', '--standalone']
    command += ['--max-restarts', restarts, '--nproc-per-node', processes, '-m', 'trainer', stage]
    command += [recipe, '--out', out, '--cache', out / 'cache', '--quiet', '--threads', '1']
    with out.with_suffix('.log').open('w') as log:
        words = [*map(str, [*command, *words])]
        return subprocess.Popen(words, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT)


def end(running, out):
    """Wait for a training and return its folder."""
    assert running.wait(HANGS) == 0, out.with_suffix('.log').read_text()
    return out


def train(root, processes, *words, stage='train'):
    """Train the miniature by so many processes; return the folder."""
    out = root / f'by_{processes}'
    return end(start(root / 'recipe.yaml', out, processes, *words, stage=stage), out)


def kill_one(running, begun):
    """Kill a process of a training by SIGKILL once begun() says that it is in the middle."""
    deadline = time.monotonic() + HANGS
    while not begun():
        assert running.poll() is None, 'it ended by itself'
        assert time.monotonic() < deadline
        time.sleep(0.01)
    children = Path(f'/proc/{running.pid}/task/{running.pid}/children').read_text().split()
    os.kill(int(children[-1]), signal.SIGKILL)


def learned(out, *kinds):
    """Return all tensors of some kinds of artifacts, by kind and name."""
    found = {}
    for kind in kinds:
        (folder,) = out.glob(f'{kind}-*/')
        for file in folder.glob('*.safetensors'):
            found |= {f'{kind}/{name}': value for name, value in load_file(file).items()}
    return found
