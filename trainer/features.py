# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Patch tokens of a frozen backbone for a list of images, in a memory-mapped on-disk cache."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ood_perception.errors import ConfigError, DataError
from ood_perception.files import cache_root
from ood_perception.image.geometry import geometry_for, to_network
from ood_perception.image.views import ViewSpec, view_geometry, view_problem
from ood_perception.json_files import write_json
from ood_perception.types import Geometry

from .artifacts import digest
from .backbones.base import Backbone, Layer, layer_name
from .data.images import ImageList, content_sha256, read_image
from .distributed import device
from .feature_files import Batches, FeatureFiles, release

# What is kept of another format is made again: 2, from five pixels into four bilinearly.
FORMAT = 2
_LABELS = 'labels'
PRECISIONS = ('f32', 'bf16')


@dataclass(frozen=True)
class FeatureSet:
    """
    Tokens and labels of one list of images at one network resolution.

    names: image names, n of them.
    tokens: layer name ('tokens_11') -> float16 (n, gh, gw, D), memory-mapped or Rows of such;
        'maps_2' may be finer.
    labels: uint8 (n, h, w) at network resolution, class ids, 255 = ignored (void, padding),
        memory-mapped; nearest-resized by ood_perception.image.geometry.
    height, width, patch: h, w and the patch size; gh = h / patch, gw = w / patch.
    key: sha256 of everything that the tokens depend on.
    geometries: how each image lies in the network input; () where nothing asks for it.
    """

    names: tuple[str, ...]
    tokens: dict[str, Any]
    labels: Any
    height: int
    width: int
    patch: int
    key: str
    geometries: tuple[Geometry, ...] = ()

    def subset(self, indices: Sequence[int]) -> FeatureSet:
        """Return the images at `indices`, in that order; arrays are read when rows are asked."""
        chosen = np.asarray(indices, np.int64)
        return replace(
            self,
            names=tuple(self.names[i] for i in chosen),
            tokens={name: Rows([array], chosen) for name, array in self.tokens.items()},
            labels=Rows([self.labels], chosen),
            geometries=tuple(self.geometries[i] for i in chosen if self.geometries),
            key=digest({'of': self.key, 'indices': chosen.tolist()}),
        )


class Rows:
    """
    Chosen rows of memory-mapped arrays laid end to end; behaves like one array.

    Rows are read when they are indexed, so that a subset of a large cache costs no memory.
    """

    def __init__(self, sources: Sequence[Any], indices: npt.NDArray[np.int64]):
        self.sources, self.indices = tuple(sources), indices
        self.starts = np.cumsum([0, *(len(source) for source in sources)])
        self.shape = (len(indices), *sources[0].shape[1:])
        self.dtype, self.ndim = sources[0].dtype, len(self.shape)

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, key: Any) -> npt.NDArray[Any]:
        if isinstance(key, tuple):
            rows, *rest = key
            one = isinstance(rows, (int, np.integer))
            return self[rows][tuple(rest) if one else (slice(None), *rest)]
        chosen = self.indices[key]
        if np.ndim(chosen) == 0:
            return self._row(int(chosen))
        empty = np.empty((0, *self.shape[1:]), self.dtype)
        return np.stack([self._row(int(i)) for i in chosen]) if len(chosen) else empty

    def _row(self, index: int) -> npt.NDArray[Any]:
        part = int(np.searchsorted(self.starts, index, side='right')) - 1
        return np.asarray(self.sources[part][index - self.starts[part]])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> npt.NDArray[Any]:
        return np.asarray(self[:], dtype=dtype)


def tokens_of(
    features: FeatureSet,
    layers: Sequence[str],
    indices: Sequence[int],
    device: torch.device | None = None,
) -> list[torch.Tensor]:
    """Return float32 (B, gh, gw, D) of each layer, on the CPU by default."""
    halves = [rows_of(features.tokens[layer], indices) for layer in layers]
    for layer in layers:
        release(features.tokens[layer])
    return [torch.from_numpy(half).to(device).float() for half in halves]


def rows_of(array: Any, places: Sequence[int]) -> npt.NDArray[Any]:
    """Return the rows of an array, or what behaves like one, at some places or at none."""
    if not len(places):
        return np.empty((0, *array.shape[1:]), array.dtype)
    return np.stack([array[i] for i in places])


def joined(sets: Sequence[FeatureSet]) -> FeatureSet:
    """Put feature sets of one backbone, layers and view behind each other."""
    first = sets[0]
    if any(
        (s.height, s.width, s.patch, list(s.tokens))
        != (first.height, first.width, first.patch, list(first.tokens))
        for s in sets
    ):
        raise DataError('feature sets of different sizes or layers cannot be joined')
    count = sum(len(s.names) for s in sets)
    tokens = {
        name: Rows([s.tokens[name] for s in sets], np.arange(count)) for name in first.tokens
    }
    return replace(
        first,
        names=tuple(name for s in sets for name in s.names),
        tokens=tokens,
        labels=Rows([s.labels for s in sets], np.arange(count)),
        geometries=tuple(g for s in sets for g in s.geometries),
        key=digest({'joined': [s.key for s in sets]}),
    )


@dataclass(frozen=True)
class View:
    """
    How images are brought to the network: its input.

    height, width: in pixels, multiples of the patch. policy: see geometry.geometry_for.
    anchors: placements in [0, 1], one image after the other in turn, so that a padded image's
        content is seen at several places; the images of one sequence position move by one.
    precision: of the backbone's arithmetic, 'f32' or 'bf16' (tokens are stored as float16).
    views: further crops that the bundle sees beside the whole image; they calibrate, and are not
        fitted on.
    """

    height: int = 378
    width: int = 672
    policy: str = 'fit'
    anchors: tuple[float, ...] = (0.5,)
    precision: str = 'f32'
    views: tuple[ViewSpec, ...] = ()

    def __post_init__(self) -> None:
        if problem := view_problem(self.views):
            raise ConfigError(f'view: {problem}')

    @property
    def size(self) -> tuple[int, int]:
        """(height, width)."""
        return self.height, self.width

    def geometry(self, image: npt.NDArray[np.uint8], index: int) -> Geometry:
        """Return how image `index` of a list, uint8 (H, W, 3), lies in the network input."""
        size = (int(image.shape[0]), int(image.shape[1]))
        return geometry_for(size, self.size, self.policy, self.anchors[index % len(self.anchors)])

    def cropped(self, crop: ViewSpec) -> CropView:
        """Return the same input, that sees a crop instead of the whole image."""
        return CropView(self.height, self.width, precision=self.precision, crop=crop)


@dataclass(frozen=True)
class CropView(View):
    """One of the further views alone."""

    crop: ViewSpec = field(default_factory=lambda: ViewSpec('crop'))

    def geometry(self, image: npt.NDArray[np.uint8], index: int) -> Geometry:
        """Return how the crop of an image, uint8 (H, W, 3), lies in the network input."""
        return view_geometry(self.crop, (int(image.shape[0]), int(image.shape[1])), self.size)


def extract(
    images: ImageList,
    backbone: Backbone,
    layers: Sequence[Layer],
    view: View,
    cache: Path | None = None,
    batch: int = 4,
    remote: Path | None = None,
) -> FeatureSet:
    """
    Return the patch tokens and labels of a list, computing only what the cache lacks.

    layers: 0-based block indices or names, see layers; each has files of its own. cache: default
        cache_root()/features. batch: images per forward pass. remote: a folder of an object
        store, where what the cache lacks is looked for, and what is computed is put.

    Safe to kill at any moment: a later call goes on behind the last whole batch. Several
    processes, of torchrun or not, that share the cache share the work, block by block.
    Raises DataError for unreadable images, ConfigError for an impossible view.
    """
    if view.precision not in PRECISIONS or not view.anchors:
        raise ConfigError(f'precision {view.precision!r}: choose one of {", ".join(PRECISIONS)}')
    if not len(images):
        raise DataError('the image list is empty: there is nothing to extract')
    backbone.baked(*view.size, layers)  # refuses layers and sizes that it does not have
    description = _describe(images, backbone, view)
    key = digest(description)
    files = replace(
        _files(images, backbone, layers, view, batch),
        folder=(cache or cache_root() / 'features') / key[:32],
        remote=remote / key[:32] if remote else None,
    )
    files.fill()
    write_json(files.folder / 'description.json', description)
    return FeatureSet(
        names=images.names,
        tokens={layer_name(layer): _whole(files, layer_name(layer)) for layer in layers},
        labels=_whole(files, _LABELS),
        height=view.height,
        width=view.width,
        patch=backbone.patch,
        key=digest({'set': key, 'layers': list(layers)}),
        geometries=_geometries(images, view),
    )


def _geometries(frames: ImageList, view: View) -> tuple[Geometry, ...]:
    """Return how each image lies in the network input, where several views are to meet."""
    if not view.views and not isinstance(view, CropView):
        return ()
    images = (read_image(path) for path in frames.images)
    return tuple(view.geometry(image, index) for index, image in enumerate(images))


def network_image(
    images: ImageList, index: int, view: View
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """Return image `index` at network size: uint8 (h, w, 3) RGB and labels uint8 (h, w)."""
    image, labels = images.read(index)
    geometry = view.geometry(image, index)
    return to_network(image, geometry), to_network(labels, geometry, labels=True)


def _files(
    frames: ImageList, backbone: Backbone, layers: Sequence[Layer], view: View, batch: int
) -> FeatureFiles:
    """Return the files of the labels and of some layers."""
    kinds: dict[str, tuple[tuple[int, ...], Any]] = {
        layer_name(layer): (_shape(backbone, layer, view), np.float16) for layer in layers
    }
    kinds[_LABELS] = (view.size, np.uint8)

    def compute(images: range, names: Sequence[str]) -> Batches:
        wanted = [layer for layer in layers if layer_name(layer) in names]
        baked = backbone.baked(*view.size, wanted).to(device()) if wanted else None
        for first in range(0, len(images), batch):
            seen = [network_image(frames, i, view) for i in images[first : first + batch]]
            rows: dict[str, Any] = {_LABELS: np.stack([labels for _, labels in seen])}
            if baked is not None:
                inputs = np.stack([image for image, _ in seen])
                values = forward_tokens(baked, inputs, view.precision)
                rows |= zip(map(layer_name, wanted), values, strict=True)
            yield rows
        if baked is not None:
            baked.cpu()  # its weights are the backbone's

    return FeatureFiles(Path(), len(frames), kinds, compute, batch)


def _whole(files: FeatureFiles, name: str) -> Any:
    """Return an array of all blocks."""
    parts = files.parts(name)
    return parts[0] if len(parts) == 1 else Rows(parts, np.arange(files.count))


def _shape(backbone: Backbone, layer: Layer, view: View) -> tuple[int, ...]:
    rows, columns = (side // backbone.stride(layer) for side in view.size)
    return rows, columns, backbone.width(layer)


def forward_tokens(
    baked: torch.nn.Module, images: npt.NDArray[np.uint8], precision: str
) -> Iterator[npt.NDArray[np.float16]]:
    """Yield each layer's tokens, float16 (B, gh, gw, D), of uint8 (B, h, w, 3)."""
    device = next(baked.parameters()).device
    enabled = precision == 'bf16'
    with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=enabled):
        values = baked(torch.from_numpy(images).to(device))
    for value in values:
        yield value.to(torch.float16).cpu().numpy()


def _describe(images: ImageList, backbone: Backbone, view: View) -> dict[str, Any]:
    """Return everything that tokens and labels depend on."""
    return {
        'format': FORMAT,
        'backbone': backbone.name,
        'weights_sha256': backbone.provenance.get('weights_sha256', ''),
        'normalisation': backbone.normalisation,
        'height': view.height,
        'width': view.width,
        'policy': view.policy,
        'anchors': list(view.anchors),
        'precision': view.precision,
        'images': content_sha256(images),
        'count': len(images),
        **({'crop': asdict(view.crop)} if isinstance(view, CropView) else {}),
    }
