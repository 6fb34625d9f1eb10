# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""How a student is fitted: teacher, composed images, distillation, held-out curve."""

from __future__ import annotations

import copy
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ood_perception.errors import ConfigError

from ...artifacts import Artifact, load_values, save_values
from ...augment.coco import read_coco
from ...augment.cutouts import PARTS
from ...augment.mixes import MixedImages, draw_mixes
from ...augment.outlier_sources import OutlierConfig, check_outliers, load_outliers
from ...augment.pasting import MixSettings
from ...augment.views import ViewSettings, draw_views
from ...backbones.base import layer_name
from ...calibration.monotone_curve import CalibrationCurve
from ...data.images import ImageList, image_list
from ...features import View
from ...nets.patches import PatchSettings
from ...training.finetuning import FinetuningConfig, save_tuned
from ...training_data import BackboneConfig, TrainingData
from ..baselines.config import BaselineConfig
from ..calibrated import OneScoreFit, reports
from .config import DistilledConfig
from .model import DistilledHead, Student, load_student, save_student
from .teacher import Teacher, fit_distance, fit_teacher
from .training import DistillationRun, Lessons, normal_features

STUDENT_FILE, TEACHER_FILE = 'student.safetensors', 'teacher.npz'
DISTANCE_FILE = 'distance.npz'
ANCHORS = (0.0, 0.5, 1.0)
LEAST_SHARE = 0.5  # of the largest source's images that every other gives


class DistilledFit(OneScoreFit):
    """A student of a frozen ViT's distance; the moving average of its weights serves."""

    kind = 'distilled'
    tunes_backbone = True

    def _read(self) -> None:
        self.distilled: DistilledConfig = self.seeded('distilled')
        self.baseline: BaselineConfig = self.seeded('baseline')
        self.patches: PatchSettings = self.sections['patches']
        self.outliers: OutlierConfig = self.sections['outliers']
        self.mixes: MixSettings = self.sections['mixes']
        self.views: ViewSettings = self.sections['views']

    def check(self) -> None:
        """Check the files of objects, and that both grids are one; see HeadFit.check."""
        check_outliers(self.outliers, self.data.root)
        own, taught = self.data.view, self.teacher_data.view
        patches = self.data.backbone.patch, self.teacher_data.backbone.patch
        grids = [
            (v.height // p, v.width // p) for v, p in zip((own, taught), patches, strict=True)
        ]
        if grids[0] != grids[1]:
            raise ConfigError(
                f'the student has a grid of {grids[0]} cells, the teacher {grids[1]}: choose '
                'view.height, view.width and distilled.teacher_size so that both are one'
            )

    @property
    def layers(self) -> tuple[str, ...]:
        """The maps that the decoder reads."""
        return tuple(layer_name(layer) for layer in self.distilled.layers)

    @cached_property
    def teacher_data(self) -> TrainingData:
        """The same images, seen by the teacher."""
        config, data = self.distilled, self.data
        source = BackboneConfig(config.teacher, layers=self.baseline.layers)
        view = View(*config.teacher_size, data.view.policy, data.view.anchors)
        return replace(data, source=source, view=view, finetuning=FinetuningConfig())

    @cached_property
    def teacher(self) -> Artifact:
        """The teacher's distance, fitted on the labelled images, or found."""
        data = self.teacher_data
        features, chosen, sources = data.fitted_features, self.chosen, data.fitted_sources
        settings = self.baseline, self.patches

        def fill(target: Path, _: Artifact) -> None:
            found = fit_teacher(features, data.class_names, chosen, sources, *settings)
            save_values(target / TEACHER_FILE, found)

        inputs = features.key, chosen, data.class_names, *map(asdict, settings)
        return self.made('teacher', inputs, fill)

    @property
    def chosen(self) -> tuple[str, ...]:
        """The classes that are normal."""
        return self.config.classes or self.data.class_names

    def composed(self) -> list[MixedImages]:
        """Return the images to learn from, a list a scale: no source is rare, objects pasted."""
        images = evened(self.data.images_of(self.distilled.split or self.data.config.train))
        objects = [
            one
            for part in reversed(PARTS)  # nothing is chosen by them: all of them teach
            for one in load_outliers(self.outliers, part, self.data.root)
        ]
        size = self.distilled.teacher_size
        sizes = [replace(self.mixes, scale=scale) for scale in self.distilled.scales]
        return [
            draw_mixes(images, objects, mixes, self.views, size, 'fill')
            for mixes in sizes or [self.mixes]
        ]

    def lessons(self) -> Lessons:
        """Return composed images with the teacher's tokens of them, computed or found."""
        config, names = self.distilled, self.data.class_names
        seen = View(*config.teacher_size, 'fill', ANCHORS, config.teacher_precision)
        taught = replace(self.teacher_data, view=seen)
        drawn = [*self.composed(), *([self.everyday()] if config.everyday else [])]
        lists = tuple((images, taught.extract(images)) for images in drawn)
        view = replace(seen, height=self.data.view.height, width=self.data.view.width)
        teacher = load_values(self.teacher.folder / TEACHER_FILE, Teacher)
        return Lessons(lists, view, teacher, tuple(names.index(name) for name in self.chosen))

    def everyday(self) -> ImageList:
        """Return views of the images that objects come from, without labels."""
        folder, allowed = self.outliers.folder_at(self.data.root), self.outliers.licences
        shown = [one for one in read_coco(folder) if not allowed or one.licence in allowed]
        images, classes = [one.path for one in shown], self.data.images.classes
        plain = image_list(images, (), classes, names=[f'everyday {one.name}' for one in shown])
        return draw_views(plain, replace(self.views, views=self.distilled.everyday))

    def fit(self) -> Artifact:
        """Train (or load) the student and its backbone."""
        lessons, config = self.lessons(), self.distilled

        def fill(target: Path, artifact: Artifact) -> Mapping[str, Any]:
            backbone = copy.deepcopy(self.data.backbone)
            student = self._student(len(lessons.teacher.mean))
            done = DistillationRun(lessons, backbone, student, config).fit(artifact)
            backbone.requires_grad_(False).eval()
            feature = normal_features(lessons, backbone, student)
            distance = fit_distance(feature, np.ones(len(feature)), config.shrinkage, True)
            save_values(target / DISTANCE_FILE, distance)
            save_student(target / STUDENT_FILE, student)
            save_tuned(target, backbone)
            return done.report()

        source = self.data.backbone.provenance['weights_sha256']
        keys = [features.key for _, features in lessons.lists]
        inputs = keys, self.teacher.key, source, asdict(config)
        return self.made('fit-distilled', inputs, fill)

    def _student(self, teacher: int) -> Student:
        """Return a new student; teacher: width of the teacher's tokens."""
        backbone, config = self.data.backbone, self.distilled
        strides = [backbone.stride(layer) for layer in self.layers]
        if len(set(strides[1:])) > 1 or strides[1] != backbone.patch or strides[1] % strides[0]:
            raise ConfigError(
                f'distilled.layers {list(self.layers)} have {strides} pixels a cell: name one '
                f'finer map, then such of {backbone.patch}'
            )
        widths = [backbone.width(layer) for layer in self.layers]
        shape = self.layers, widths, config.width, strides[1] // strides[0]
        with torch.random.fork_rng():
            torch.manual_seed(config.seed)
            return Student(*shape, len(self.data.class_names), teacher)

    @cached_property
    def served(self) -> TrainingData:
        """The data, seen by the student's backbone."""
        record = {'teacher': self.distilled.teacher}
        return self.data.tuned(self.fitted.folder, 'trained as a student', record)

    def build(self, curve: CalibrationCurve | None = None) -> DistilledHead:
        """Return the fitted head, see OneScoreFit."""
        student = load_student(self.fitted.folder / STUDENT_FILE)
        distance = load_values(self.fitted.folder / DISTANCE_FILE, Teacher)
        return DistilledHead(student, distance, self.chosen, curve)

    def provenance(self) -> dict[str, Any]:
        """Return what the manifest says of the fit."""
        source = self.teacher_data.backbone.provenance
        taught = {key: source[key] for key in ('description', 'weights_sha256', 'origin')}
        return {**reports(student=self.fitted), 'teacher': taught}


def evened(images: ImageList) -> ImageList:
    """Repeat the images of rare sources until each has LEAST_SHARE of the largest one's."""
    sources = [sequence.partition('/')[0] for sequence in images.sequences]
    counts = Counter(sources)
    wanted = LEAST_SHARE * max(counts.values())
    times = {name: max(1, math.ceil(wanted / count)) for name, count in counts.items()}
    return images.subset(i for i, name in enumerate(sources) for _ in range(times[name]))
