# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""What a clean frame shows: the head's own surprisal on the predicted ground, view by view."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ood_perception import __version__
from ood_perception.engines.base import Engine
from ood_perception.engines.chain import ChainEngine
from ood_perception.errors import EngineError
from ood_perception.evaluation.record import Arrays, load_record, save_record
from ood_perception.image.geometry import Size, to_network
from ood_perception.image.views import on_grid
from ood_perception.json_files import json_text
from ood_perception.loader import Model
from ood_perception.postprocess.drift import inner_ground
from ood_perception.postprocess.image_statistics import ImageStatistics, statistics_of
from ood_perception.settings import chosen_classes
from ood_perception.types import (
    BoolArray,
    Frame,
    Geometry,
    JsonDict,
    UInt8Array,
)

Float16Array = npt.NDArray[np.float16]


@dataclass(frozen=True)
class SeenFrame:
    """
    The predicted ground of one frame (drift.inner_ground).

    name, camera, stamp_ns: of the frame. cells: int32 (N,), places in the flattened score grid.
    surprisal: float16 (N, V, S) >= 0, the graph's own, as HeldOutSample's. served: float16 (N,),
    what the parent bundle makes of it. truth: uint8 (N,), the label's place among the head's
    classes. ground: N as a fraction of the cells inside the image. look: the image's statistics.
    scored: bool (N,), whether the cell lies in the region of interest: all, of the ground.
    geometries, grid: of the views, and the size of the score grid, (gh, gw).
    tokens: float16 (V, rows, columns, D), what a Gaussian head reads, None where not asked for.
    """

    name: str
    camera: str
    stamp_ns: int
    cells: npt.NDArray[np.int32]
    surprisal: Float16Array
    served: Float16Array
    truth: UInt8Array
    ground: float
    look: ImageStatistics
    scored: BoolArray
    geometries: tuple[Geometry, ...] = ()
    grid: Size = (0, 0)
    tokens: Float16Array | None = field(default=None, repr=False)

    def only(self, keep: BoolArray) -> SeenFrame:
        """Return the frame with the cells where keep, bool (N,), is true."""
        return replace(
            self,
            cells=self.cells[keep],
            surprisal=self.surprisal[keep],
            served=self.served[keep],
            truth=self.truth[keep],
            scored=self.scored[keep],
        )


class KeptFrames:
    """
    A folder with a file for each image, named by the image and all else that its content rests on.

    context: plain values and arrays: what made the kept arrays (bundle, engine, settings). With
    another one, or another version of this package, nothing is reused. A run with more frames
    takes those of a shorter one.
    """

    def __init__(self, folder: Path, context: JsonDict) -> None:
        self._folder = folder
        known = {**context, 'version': __version__}
        self._context = json_text(known, sort_keys=True, default=_digest).encode()
        self.reused = 0

    def arrays(self, parts: Sequence[npt.NDArray[Any]], make: Callable[[], Arrays]) -> Arrays:
        """Return what make() gave for these parts before, or gives now; damaged files go."""
        key = hashlib.blake2b(self._context, digest_size=20)
        for part in parts:
            key.update(_digest(part).encode())
        file = self._folder / f'{key.hexdigest()}.npz'
        arrays = load_record(file)
        if arrays is None:
            arrays = make()
            save_record(file, arrays)
        else:
            self.reused += 1
        return arrays


def _digest(array: npt.NDArray[Any]) -> str:
    whole = hashlib.blake2b(f'{array.dtype.str} {array.shape} '.encode(), digest_size=20)
    whole.update(np.ascontiguousarray(array).data.cast('B'))
    return whole.hexdigest()


class Observer:
    """
    Runs clean frames through a model as the node would, and keeps the head's own surprisal.

    Of every class that the engine was compiled for. layers: names of token outputs to keep, () =
    none. folder: where what was seen is kept until it is no longer needed (`kept`).
    Raises EngineError for an engine whose stages do not run one by one.
    """

    def __init__(self, model: Model, layers: Sequence[str], folder: Path) -> None:
        engine = model.engine
        if not isinstance(engine, ChainEngine):
            raise EngineError(
                f'engine {engine.description.get("runtime")} runs a bundle as a whole: adapt with '
                'openvino or onnxruntime; the result serves on every engine'
            )
        self._head, self._classes = model.head, engine.compiled_classes
        self._engine, self._layers = engine, tuple(layers)
        self._pipeline = model.pipeline
        self._tokens: dict[str, Any] = {}
        self._replay = False
        context = {
            'bundle': model.bundle.sha256,
            'engine': engine.description,
            'classes': self._classes,
            'settings': asdict(model.pipeline.settings),
            'layers': self._layers,
        }
        self.kept = KeptFrames(folder, context)
        names = model.bundle.manifest.stages[0].outputs
        engine.first_stage = lambda _, compute: self._first_stage(names, compute)
        self._places = np.full(256, 255, np.uint8)  # the head's class of a label that is normal
        labels = [spec.name for spec in model.bundle.manifest.classes]
        for name in chosen_classes(model.bundle.manifest, model.pipeline.settings):
            self._places[labels.index(name)] = self._classes.index(name)

    def close(self) -> None:
        """Let the engine run as before."""
        self._engine.first_stage = None

    def see(self, frame: Frame, like: SeenFrame | None = None, tokens: bool = False) -> SeenFrame:
        """
        Return what a frame shows; ImageError and EngineError as the pipeline raises them.

        like: take its cells for the predicted ground. tokens: whether to keep them.
        """
        parts = [frame.image, np.array([tokens]), *([] if like is None else [like.cells])]
        kept = self.kept.arrays(parts, lambda: self._arrays(frame, like, tokens))
        size = (frame.image.shape[0], frame.image.shape[1])
        spec, settings = self._pipeline.manifest.input, self._pipeline.settings
        return SeenFrame(
            name=frame.frame_id,
            camera=frame.camera,
            stamp_ns=frame.stamp_ns,
            cells=kept['cells'],
            surprisal=kept['surprisal'],
            served=kept['served'],
            truth=kept['truth'] if like is None else like.truth,
            ground=float(kept['ground']),
            look=statistics_of(frame.image),
            scored=kept.get('scored', np.ones(len(kept['cells']), bool)),
            geometries=spec.geometries(size, settings.views),
            grid=(int(kept['grid'][0]), int(kept['grid'][1])),
            tokens=kept.get('tokens'),
        )

    def _arrays(self, frame: Frame, like: SeenFrame | None, tokens: bool) -> Arrays:
        """Return what costs engine time of a SeenFrame, by its fields' names."""
        self._replay = False
        detection = self._pipeline.run([frame])[0]
        labels, scored = detection.labels, detection.scored
        inside = inner_ground(labels, scored, self._places != 255, self._head.upsampling)
        if like is not None:
            inside = np.zeros_like(inside)
            inside.flat[like.cells] = True
        size = (frame.image.shape[0], frame.image.shape[1])
        views = self._pipeline.settings.views
        geometries = self._pipeline.manifest.input.geometries(size, views)
        visible = detection.visible if detection.visible is not None else detection.scored
        found: Arrays = {
            'cells': np.flatnonzero(inside).astype(np.int32),
            'surprisal': self._surprisal(frame.image, geometries, inside),
            'served': detection.surprisal[inside].astype(np.float16),
            'truth': self._places[labels][inside],
            'scored': scored[inside],
            'ground': np.array(inside.sum() / max(int(visible.sum()), 1)),
            'grid': np.array(inside.shape),
        }
        if tokens and self._layers:
            parts = [self._tokens[name] for name in self._layers]
            found['tokens'] = np.concatenate(parts, axis=3).astype(np.float16)
        return found

    def _surprisal(
        self, image: UInt8Array, geometries: Sequence[Geometry], inside: BoolArray
    ) -> Float16Array:
        maps = [self._engine.last.surprisal]
        if self._head.selection == 'min' and len(self._classes) > 1:
            self._replay = True
            images = np.stack([to_network(image, geometry) for geometry in geometries])
            one_hot = np.eye(len(self._classes), dtype=np.float32)
            maps = [self._engine.run(images, vector).surprisal for vector in one_hot]
        return np.concatenate([at_cells(one, geometries, inside) for one in maps], axis=2)

    def _first_stage(
        self, names: Sequence[str], compute: Callable[[], Sequence[Any]]
    ) -> Sequence[Any]:
        if not self._replay:
            self._tokens = dict(zip(names, map(np.array, compute()), strict=True))
        return [self._tokens[name] for name in names]


def at_cells(
    surprisal: npt.NDArray[np.floating[Any]], geometries: Sequence[Geometry], inside: BoolArray
) -> Float16Array:
    """Return float16 (N, V, 1), the surprisal (V, gh, gw) of all views in the N cells inside."""
    whole, *crops = surprisal.astype(np.float32)
    pairs = zip(crops, geometries[1:], strict=True)
    placed = [on_grid(crop, geometry, geometries[0]) for crop, geometry in pairs]
    return np.stack([whole, *placed])[:, inside].T[:, :, None].astype(np.float16)


def tokens_of(engine: Engine, images: UInt8Array, layers: Sequence[str]) -> npt.NDArray[Any]:
    """Return the tokens of the layers side by side, float (B, rows, columns, D)."""
    names, kept = engine.manifest.stages[0].outputs, []

    def first(_: Sequence[Any], compute: Callable[[], Sequence[Any]]) -> Sequence[Any]:
        outputs = list(compute())
        named = dict(zip(names, map(np.array, outputs), strict=True))
        kept.append(np.concatenate([named[name] for name in layers], axis=3))
        return outputs

    assert isinstance(engine, ChainEngine)
    engine.first_stage = first
    vector = np.ones(len(engine.compiled_classes), np.float32)
    for image in images:
        engine.run(image[None], vector)
    engine.first_stage = None
    return np.concatenate(kept)
