# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The command line programs of the runtime."""

import argparse
from collections.abc import Callable

from ood_perception.errors import exit_status


def guarded(work: Callable[[argparse.Namespace], int], arguments: argparse.Namespace) -> int:
    """Return the exit status; a user's mistake is one line, never a traceback."""
    return exit_status('error', lambda: work(arguments))
