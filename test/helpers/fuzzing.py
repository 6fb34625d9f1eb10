# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Inputs that nobody meant: whole ones with a few bytes changed, cut or doubled, or any bytes."""

import contextlib
import os
import random
from functools import cache

import pytest

from ood_perception.errors import OodPerceptionError

hypothesis = pytest.importorskip('hypothesis', reason='needs hypothesis (extra test)')
st = hypothesis.strategies

EXAMPLES = int(os.environ.get('FUZZ_EXAMPLES', '60'))
fuzzed = hypothesis.settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize='FUZZ_EXAMPLES' not in os.environ,
    suppress_health_check=list(hypothesis.HealthCheck),
)
# For what takes ten milliseconds and more.
seldom = hypothesis.settings(fuzzed, max_examples=max(5, EXAMPLES // 4))


@cache
def changed(whole):
    """
    Return a strategy of bytes: parts of `whole` altered, cut, doubled, or anything.

    One number makes an input's edits: drawn one by one they would take ten times as long.
    """
    seeds = st.tuples(st.integers(0, 6), st.integers(0, 2**64 - 1))
    return seeds.map(lambda drawn: _edited(whole, *drawn))


def _edited(whole, count, seed):
    rng = random.Random(seed)
    if not count:
        cut = whole[: rng.randint(0, len(whole))]
        return rng.choice([cut, rng.randbytes(rng.randint(0, 400))])
    data = bytearray(whole)
    for _ in range(count):
        place = rng.randint(0, len(data))
        length = rng.choice([0, 1, 1, 2, 4, 8, rng.randint(0, 64)])
        made = [rng.randbytes(length), bytes(length), b'\xff' * length, b'9' * 400]
        new = rng.choice([*made, data[max(0, place - 64) : place]])
        data[place : place + rng.choice([length, rng.randint(0, 64)])] = new
    return bytes(data)


def texts(whole):
    return changed(whole.encode()).map(lambda data: data.decode('utf-8', 'replace'))


def own_error_or_none(work, *others):
    """Run it; only the package's own errors, and `others` that it documents, may come out."""
    with contextlib.suppress(OodPerceptionError, *others):
        work()
