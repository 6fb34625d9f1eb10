# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Fetching one file of known size: https alone, within a time, never more bytes than asked for."""

from __future__ import annotations

import http.client
import re
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ood_perception.bundle.weights.origin_rules import check_url
from ood_perception.errors import BundleError

PIP_SECONDS = 900
BLOCK_SECONDS = 30
_BLOCK = 1 << 16
_LEAST_RATE = 100_000


def seconds_for(size: int) -> float:
    """Return how long a download of `size` bytes may take: a minute, and 100 kB a second."""
    return min(60 + size / _LEAST_RATE, 3600.0)


def pip_download(requirement: str, folder: Path) -> None:
    """
    Have pip put the wheel of 'NAME==VERSION' into a folder; nothing of it is run.

    Without --only-binary pip would run the setup of a source archive to learn its name.
    Raises OSError or subprocess.SubprocessError.
    """
    command = [sys.executable, '-m', 'pip', 'download', '--quiet', '--no-input', '--no-deps']
    command += ['--only-binary=:all:', '--disable-pip-version-check', '--dest', str(folder)]
    # In that folder, since Python would take a pip.py of the working directory for pip.
    subprocess.run(
        [*command, '--', requirement],
        check=True, capture_output=True, text=True, timeout=PIP_SECONDS, cwd=folder,
    )  # fmt: skip


def url_download(
    url: str,
    part: Path,
    size: int,
    seconds: float,
    check: Callable[[str], Any] = check_url,
) -> None:
    """
    Fetch `url` into `part`, going on behind what lies there where the server can.

    size: bytes of the file; a server that has more or fewer to say is refused. seconds: for the
    whole, however slowly a server drips. check: raises for an address that may not be asked,
    also where a redirect leads. Raises BundleError, OSError or http.client.HTTPException.
    """
    failed: list[BaseException] = []
    stop = threading.Event()

    def work() -> None:
        try:
            _fetch(url, part, size, check, stop)
        except BaseException as error:  # handed to the caller below
            failed.append(error)

    # A thread, for neither a name server nor the lines of a header keep to a socket's timeout.
    worker = threading.Thread(target=work, daemon=True)
    worker.start()
    worker.join(seconds)
    stop.set()
    if worker.is_alive():
        raise TimeoutError(f'not done after {seconds:g} s')
    if failed:
        raise failed[0]


def _fetch(
    url: str, part: Path, size: int, check: Callable[[str], Any], stop: threading.Event
) -> None:
    check(url)
    have = part.stat().st_size if part.is_file() else 0
    have = have if have < size else 0
    headers = {'Accept-Encoding': 'identity', **({'Range': f'bytes={have}-'} if have else {})}
    request = urllib.request.Request(url, headers=headers)
    with _opener(check).open(request, timeout=BLOCK_SECONDS) as response:
        if have and not _goes_on(response, have):
            have = 0
        target = response.headers.get('Content-Length', '')
        if target.isdecimal() and int(target) != size - have:
            raise BundleError(f'{url} has {int(target) + have} bytes, expected {size}')
        with part.open('ab' if have else 'wb') as file:
            _copy(response, file, size - have, url, stop)


def _goes_on(response: Any, have: int) -> bool:
    """Return whether an answer begins at byte `have`."""
    where = re.match(r'bytes (\d+)-', response.headers.get('Content-Range', ''))
    return response.status == 206 and where is not None and int(where[1]) == have


def _copy(response: Any, file: Any, left: int, url: str, stop: threading.Event) -> None:
    while block := response.read1(_BLOCK):
        left -= len(block)
        if left < 0:
            raise BundleError(f'{url} gives more bytes than the {file.tell() + left} expected')
        if stop.is_set():
            return
        file.write(block)
    if left:
        raise http.client.IncompleteRead(b'', left)


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows up to five redirects, each checked like the first address."""

    max_redirections = 5

    def __init__(self, check: Callable[[str], Any]) -> None:
        self._check = check

    def redirect_request(self, *args: Any) -> urllib.request.Request | None:
        """Check the new address, the last argument."""
        self._check(args[-1])
        return super().redirect_request(*args)


def _opener(check: Callable[[str], Any]) -> urllib.request.OpenerDirector:
    """Return an opener that knows no file:, ftp: or data:."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.HTTPHandler(),  # for proxies; `check` refuses such addresses
        urllib.request.HTTPSHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
        _Redirects(check),
    ):
        opener.add_handler(handler)
    return opener
