# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Every error that a user can cause. Each message names the value, the place and the remedy."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Sequence
from typing import Any

from .texts import printable


class OodPerceptionError(Exception):
    """Base of all errors that the package raises on purpose; safe to print, see printable."""

    def __str__(self) -> str:
        return printable(super().__str__(), keep='\n')


class BundleError(OodPerceptionError):
    """A bundle is missing, altered, incomplete or of another format."""


class EngineError(OodPerceptionError):
    """An engine cannot be built, loaded or trusted (it missed its golden vectors)."""


class ImageError(OodPerceptionError):
    """An image or image message cannot be read as what it claims to be."""


class ConfigError(OodPerceptionError):
    """A parameter, option or configuration file holds a value that cannot be used."""


class CalibrationError(OodPerceptionError):
    """A camera's calibration lacks or contradicts what rays and distances need."""


class DependencyError(OodPerceptionError):
    """An optional package is missing; the message names the extra to install."""


class DataError(OodPerceptionError):
    """A data set, an image list or a label file is not what it should be."""


def required(module: str, remedy: str) -> Any:
    """Import an optional module; DependencyError with the remedy where it is not installed."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise DependencyError(f'{remedy} ({error})') from error


def check_choices(section: str, config: object, **known: Sequence[str]) -> None:
    """Raise ConfigError for a field of a section's config that is none of the values known."""
    for name, values in known.items():
        value = getattr(config, name)
        if value not in values:
            raise ConfigError(f'{section} {name} {value!r}: choose one of {", ".join(values)}')


def check_least(section: str, config: object, least: int, *names: str) -> None:
    """Raise ConfigError where a field of a section's config is below the least value."""
    for name in names:
        value = getattr(config, name)
        if value < least:
            raise ConfigError(f'{section} {name} {value}: give at least {least}')


def exit_status(name: str, work: Callable[[], int], mistake: int = 1) -> int:
    """
    Return what a program ends with: work's own status, or `mistake` after one line of why.

    name: what the line begins with. Every program's outermost call: what the user or the machine
    is the cause of gives no traceback, a fault of ours does.
    """
    try:
        return work()
    except OodPerceptionError as error:
        text = str(error)
    except BrokenPipeError:  # the reader, such as head, has seen enough
        sys.stderr.close()
        return 0
    except OSError as error:
        text = f'{error.filename or "a file"}: {error.strerror or error}'
    except MemoryError as error:
        text = f'memory ran out ({error}): close other programs, or ask for less at once'
    except KeyboardInterrupt:
        print(f'{name}: stopped', file=sys.stderr)
        return 130
    print(f'{name}: {printable(text, keep=chr(10))}', file=sys.stderr)
    return mistake
