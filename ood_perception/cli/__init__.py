# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The command line programs of the runtime."""

import argparse
import sys
from collections.abc import Callable

from ood_perception.errors import OodPerceptionError


def guarded(work: Callable[[argparse.Namespace], int], arguments: argparse.Namespace) -> int:
    """Return the exit status; a user's mistake is one line, never a traceback."""
    try:
        return work(arguments)
    except OodPerceptionError as error:
        print(f'error: {error}', file=sys.stderr)
        return 1
    except BrokenPipeError:  # the reader, such as head, has seen enough
        sys.stderr.close()
        return 0
