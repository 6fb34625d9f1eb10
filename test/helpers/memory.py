"""How much memory a piece of work asks for, counted where Python and numpy ask."""

import contextlib
import tracemalloc


@contextlib.contextmanager
def peak_mib():
    """Yield a function that returns the most MiB that were held at once since the beginning."""
    tracemalloc.start()
    peaks = []
    try:
        yield lambda: peaks[0]
    finally:
        peaks.append(tracemalloc.get_traced_memory()[1] / (1 << 20))
        tracemalloc.stop()
