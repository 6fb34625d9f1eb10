# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""What a bundle says of itself: manifest.json as frozen dataclasses, checked when read."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field

from ood_perception.image.geometry import Size, geometry_for
from ood_perception.image.views import ViewSpec, view_geometry
from ood_perception.types import Geometry, JsonDict

FORMAT_VERSION = 1
MANIFEST_NAME = 'manifest.json'


@dataclass(frozen=True)
class InputSpec:
    """
    The network input: uint8 (B, height, width, 3) RGB.

    policy: how a camera image gets there, one of geometry.POLICIES ('fit' keeps the aspect and
        pads, 'fill' keeps it and crops, 'stretch' does not keep it).
    anchor: where the image lies when it is padded or cropped, 0 = left/top, 1 = right/bottom.
    views: crops of the frame that the network sees, too, in the same batch (image.views); the
        calibration is that of the merged scores.
    """

    height: int
    width: int
    patch: int
    policy: str = 'fit'
    anchor: float = 0.5
    views: tuple[ViewSpec, ...] = ()

    @property
    def images(self) -> int:
        """How many images of a frame the network sees at most: the whole and each view."""
        return 1 + len(self.views)

    def grid(self, upsampling: int) -> Size:
        """Return (gh, gw) of a score grid; upsampling: its cells per patch along each axis."""
        return self.height // self.patch * upsampling, self.width // self.patch * upsampling

    def geometries(self, camera_size: Size, views: bool = True) -> tuple[Geometry, ...]:
        """
        Return how a frame comes to the network: the whole image, then each view if asked for.

        camera_size: (height, width) of the frame.
        """
        size = (self.height, self.width)
        whole = geometry_for(camera_size, size, self.policy, self.anchor)
        seen = self.views if views else ()
        return (whole, *(view_geometry(view, camera_size, size) for view in seen))


@dataclass(frozen=True)
class StageSpec:
    """
    One ONNX stage.

    name: 'backbone', 'decoder' or 'head'.
    file: ONNX file inside the bundle.
    inputs, outputs: tensor names; stages are chained by name.
    external_data: file with the weights beside the ONNX file, '' when they are inside it.
    reduced_precision: whether bf16, fp16 or int8 may be used here; never for a head.
    """

    name: str
    file: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    external_data: str = ''
    reduced_precision: bool = False


@dataclass(frozen=True)
class ClassSpec:
    """A known class: its label id is its place in Manifest.classes; modelled = has etalons."""

    name: str
    color: tuple[int, int, int]
    modelled: bool = True


@dataclass(frozen=True)
class HeadSpec:
    """
    One head's outputs and meaning.

    upsampling: score grid cells per patch along each axis.
    selection: 'min' (per class, the class choice counts), 'gated' or 'unified' (one table, the
        class choice does not count).
    calibration: 'held-out' or 'paper'.
    compiled_classes: the classes whose scores the head graph holds, in the order of the
        'in_distribution' input.
    set_calibration: file with the held-out sample that the table of any set of classes is fitted
        on (ood_perception.postprocess.calibration), '' = the graph's surprisal is served as it is.
    """

    name: str
    surprisal: str
    labels: str
    upsampling: int
    selection: str
    calibration: str
    compiled_classes: tuple[str, ...]
    set_calibration: str = ''


@dataclass(frozen=True)
class FileSpec:
    """Checksum and size of a file of the bundle."""

    sha256: str
    size: int


@dataclass(frozen=True)
class GoldenSpec:
    """
    Golden vectors and the bounds that an engine must keep.

    file: .npz with image uint8 (2, h, w, 3), in_distribution float32 (C,), surprisal float32 and
        labels uint8 (2, gh, gw), the outputs of torch in float32.
    surprisal_tolerance: largest |difference| where the golden surprisal is <= surprisal_bound.
    score_tolerance: largest |difference| of 1 - 10^-surprisal.
    reduced_precision_surprisal_tolerance: 99.9 % quantile of |difference| up to surprisal_bound
        when the backbone runs in less than float32.
    label_agreement: least share of equal labels.
    """

    file: str = 'golden.npz'
    surprisal_tolerance: float = 0.01
    surprisal_bound: float = 6.0
    score_tolerance: float = 1e-4
    reduced_precision_surprisal_tolerance: float = 0.5
    label_agreement: float = 0.99


@dataclass(frozen=True)
class PrecisionSpec:
    """
    What a reduced precision of the backbone costs, measured by the trainer.

    average_precision_loss: points (0..100) of AP lost against float32 on held-out images;
        interval: its 95 % bootstrap interval over images (low, high).
    surprisal_tolerance, label_agreement: bounds of the golden check in this precision, in the
        place of GoldenSpec's.
    file: what the precision is derived from (int8: ranges of the activations), '' = nothing.
    measured: on which images, with which runtime, at what speed.
    """

    average_precision_loss: float
    interval: tuple[float, float]
    surprisal_tolerance: float
    label_agreement: float
    file: str = ''
    measured: JsonDict = field(default_factory=dict)


@dataclass(frozen=True)
class Manifest:
    """
    The whole manifest.

    ground_classes: classes whose hull is the road region of interest.
    in_distribution: classes that count as normal unless the user says otherwise.
    provenance: backbone, its weights' sha256 and origin, licence, tool version, revision, command.
    calibration: data list, pixel counts per class, rates achieved.
    licences: one line per licence or notice that the user must know.
    precisions: reduced precisions ('bf16', 'int8', 'int8_reduced_range': int8 with weights of 7
        bits) whose cost was measured.
    """

    name: str
    input: InputSpec
    stages: tuple[StageSpec, ...]
    classes: tuple[ClassSpec, ...]
    heads: tuple[HeadSpec, ...]
    ground_classes: tuple[str, ...]
    in_distribution: tuple[str, ...]
    files: dict[str, FileSpec]
    golden: GoldenSpec = field(default_factory=GoldenSpec)
    calibration: JsonDict = field(default_factory=dict)
    provenance: JsonDict = field(default_factory=dict)
    licences: tuple[str, ...] = ()
    precisions: dict[str, PrecisionSpec] = field(default_factory=dict)
    format: int = FORMAT_VERSION

    def to_json(self) -> JsonDict:
        """Return the manifest as plain JSON values."""
        return dataclasses.asdict(self)
