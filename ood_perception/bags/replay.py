# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
A bag through the pipeline: every frame, in recorded order, as fast as the engine allows.

The folder of results is made under a temporary name and renamed when everything is in it. It holds
result/ (the bag), report.json, index.html and frames.csv, and the same input gives the same bytes;
frames.rrd, where it is asked for, holds the same values but not the same bytes.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Protocol

from tqdm import tqdm

from ood_perception.errors import ConfigError, DataError, ImageError
from ood_perception.files import check_replaceable, make_folder
from ood_perception.image.decode import FrameDecoder, Otherwise
from ood_perception.json_files import read_json
from ood_perception.loader import Model
from ood_perception.postprocess.output_maps import OutputMaps
from ood_perception.postprocess.tracking import Tracker
from ood_perception.reports.html import environment
from ood_perception.types import Detection, Frame, JsonDict, Tell

from . import problems as kinds
from .cameras import CameraTopic, camera_messages, open_cameras
from .ground_truth import LabelFolder, label_topics, open_ground_truth
from .metadata import Message
from .problems import Problems
from .ranges import BagRanges
from .reading import Bag, Limits
from .rerun_file import RerunFile, load_rerun
from .statistics import CameraStatistics, FrameTable, HighestFrames, LabelledFrames
from .writing import DEFAULT_OUTPUTS, PROGRAM, ResultBag, write_reports

RESULT, RRD = 'result', 'frames.rrd'


@dataclass(frozen=True)
class ReplayOptions:
    """
    What to replay, and where to.

    topics: '/topic' or 'name=/topic', () = every image topic. ground_truth: topics of the bag or
    folders. storage: of the result bag, 'mcap' or 'sqlite3'. outputs: () = no result bag. batch:
    frames per engine run, >= 1.
    rrd: also write a recording for the Rerun viewer.
    """

    bag: Path
    out: Path
    topics: tuple[str, ...] = ()
    ground_truth: tuple[str, ...] = ()
    storage: str = 'mcap'
    outputs: tuple[str, ...] = DEFAULT_OUTPUTS
    on_error: str = kinds.SKIP
    limits: Limits = field(default_factory=Limits)
    batch: int = 1
    rrd: bool = False


class Watch(Protocol):
    """Who sees every frame's detection, and then puts files of its own into the result."""

    def add(self, detection: Detection, index: int) -> None:
        """Take a frame; index: of its camera's messages, from 0."""

    def write(self, folder: Path, run: Replay) -> None:
        """Write into the folder of results, when the bag is through."""


def evaluate(
    options: ReplayOptions,
    model: Model,
    tell: Tell,
    otherwise: Otherwise | None = None,
    watch: Watch | None = None,
) -> tuple[JsonDict, float]:
    """
    Replay a bag, write the folder `options.out`; return what report.json holds, and the seconds.

    otherwise: decodes raw encodings that our tables lack, as the node lets cv_bridge do. Raises
    DataError for a bag that cannot be read, for one without a frame that can be evaluated, and for
    the first problem when problems are refused; then nothing is left behind.
    """
    check_options(options)
    outcomes: list[tuple[JsonDict, float]] = []

    def fill(folder: Path) -> None:
        outcomes.append(_evaluate(options, model, folder, tell, otherwise, watch))

    make_folder(options.out, fill, _ours)
    return outcomes[0]


def check_options(options: ReplayOptions) -> None:
    """Raise ConfigError, or DependencyError, for what can be known before the work."""
    if options.batch < 1:
        raise ConfigError(f'--batch {options.batch}: give 1 or more')
    check_replaceable(options.out, _is_result)
    environment()  # without jinja2 there is no report
    if options.rrd:
        load_rerun()


def _is_result(folder: Path) -> bool:
    try:
        return bool(read_json(folder / 'report.json')['program'] == PROGRAM)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _ours(name: str) -> bool:
    """Whether a file of an earlier result's folder is part of that result."""
    return name in ('report.json', 'index.html', 'frames.csv', RRD) or name.startswith(
        f'{RESULT}/'
    )


def _evaluate(
    options: ReplayOptions,
    model: Model,
    folder: Path,
    tell: Tell,
    otherwise: Otherwise | None,
    watch: Watch | None,
) -> tuple[JsonDict, float]:
    problems = Problems(options.on_error)
    with Bag(options.bag, problems, options.limits, folder) as bag:
        cameras = open_cameras(bag, options.topics, label_topics(options.ground_truth, bag))
        truth = open_ground_truth(options.ground_truth, bag, cameras)
        for camera in cameras:
            tell(f'{camera.camera or "camera"}: {camera.topic}, {camera.count} messages')
        for note in bag.notes:
            tell(note)
        run = Replay(model, bag, cameras, truth, otherwise)
        run.watch = watch
        names = [camera.camera for camera in cameras]
        if options.rrd:
            run.ranges = BagRanges(bag, cameras, model.values, tell)
        with (
            _result_bag(folder / RESULT, bag, names, options) as result,
            (folder / 'frames.csv').open('w', encoding='utf-8', newline='') as table,
            RerunFile(folder / RRD, names, run.ranges) if run.ranges else nullcontext() as run.rrd,
        ):
            seconds = run.run(result, FrameTable(table), options.batch)
        if not any(statistics.evaluated for statistics in run.statistics.values()):
            first = problems.told[0].text if problems.told else 'its image topics are empty'
            raise DataError(f'bag {options.bag}: no frame could be evaluated; {first}')
        report = run.report(options)
        if watch is not None:
            watch.write(folder, run)
    write_reports(folder, report, run.highest.frames)
    return report, seconds


def _result_bag(
    path: Path, bag: Bag, names: Sequence[str], options: ReplayOptions
) -> AbstractContextManager[ResultBag | None]:
    if not options.outputs:
        return nullcontext()
    return ResultBag(path, bag.cdr, names, options.storage, options.outputs)


@dataclass(frozen=True)
class _Item:
    """A decoded frame on its way to the engine; index: of its camera's messages, from 0."""

    frame: Frame
    index: int
    time_ns: int


class Replay:
    """One pass over a bag; holds the counts, never more than one batch of frames."""

    def __init__(
        self,
        model: Model,
        bag: Bag,
        cameras: Sequence[CameraTopic],
        truth: dict[str, LabelFolder],
        otherwise: Otherwise | None = None,
    ) -> None:
        self._model, self._bag, self._problems = model, bag, bag.problems
        self._cameras = {camera.topic: camera for camera in cameras}
        most = round(model.values['max_megapixels'] * 1e6)
        self._decoders: dict[str, FrameDecoder[tuple[int, int]]] = {
            camera.topic: FrameDecoder(camera.camera, otherwise, most) for camera in cameras
        }
        self._truth = truth
        self._tracker = Tracker(model.persistence)
        self.statistics = {camera.camera: CameraStatistics() for camera in cameras}
        self.labelled = {camera: LabelledFrames() for camera in truth}
        self.highest = HighestFrames()
        self.rrd: RerunFile | None = None
        self.ranges: BagRanges | None = None
        self.watch: Watch | None = None

    def run(self, result: ResultBag | None, table: FrameTable, batch: int) -> float:
        """Replay every frame; return the seconds that it took."""
        count, start = sum(camera.count for camera in self._cameras.values()), time.monotonic()
        # disable=None: shown on a terminal alone
        with tqdm(total=count, unit='frame', leave=False, disable=None) as bar:
            frames = self._items(bar)
            while items := list(islice(frames, batch)):
                detections = self._model.pipeline.run([item.frame for item in items])
                for item, detection in zip(items, detections, strict=True):
                    self._keep(item, detection, result, table)
        return time.monotonic() - start

    def _items(self, bar: tqdm) -> Iterator[_Item]:
        """Yield the frames, at the end those that a video's decoder still holds."""
        for message in camera_messages(self._bag, list(self._cameras.values())):
            camera = self._cameras[message.topic]
            statistics = self.statistics[camera.camera]
            index, statistics.messages = statistics.messages, statistics.messages + 1
            yield from self._decoded(message, index)
            bar.update()
        for topic, decoder in self._decoders.items():
            held, lost = decoder.finish()
            yield from (_Item(frame, *ticket) for ticket, frame in held)
            for _ in range(lost):
                text = f'{topic}: a packet gave no image, one that it needs is damaged or missing'
                self._problems.add(kinds.BAD_FRAME, topic, text)

    def _decoded(self, message: Message, index: int) -> list[_Item]:
        place = f'{message.topic} at {message.time_ns}'
        try:
            content = self._bag.cdr.read(message.data, message.msgtype)
            ticket = (index, message.time_ns)
            frames = self._decoders[message.topic].decode(content, ticket)
            return [_Item(frame, *own) for own, frame in frames]
        except (DataError, ImageError) as error:
            kind = kinds.BAD_FRAME if isinstance(error, ImageError) else kinds.CORRUPT_MESSAGE
            self._problems.add(kind, place, f'{place}: {error}')
            return []

    def _keep(
        self, item: _Item, detection: Detection, result: ResultBag | None, table: FrameTable
    ) -> None:
        tracked = self._tracker.update(detection)
        detection = tracked.detection
        if result is not None:
            result.write(tracked, OutputMaps(detection, self._model.scale), item.time_ns)
        if self.watch is not None:
            self.watch.add(detection, item.index)
        table.add(detection, item.index, item.time_ns)
        self.statistics[item.frame.camera].add(detection)
        self.highest.add(detection, item.index)
        if self.rrd is not None:
            scene = self._model.pipeline.scene
            self.rrd.add(tracked, OutputMaps(detection), scene, item.time_ns)
        folder = self._truth.get(item.frame.camera)
        if folder is not None:
            self._compare(item, OutputMaps(detection), folder)

    def _compare(self, item: _Item, maps: OutputMaps, folder: LabelFolder) -> None:
        camera = item.frame.camera
        try:
            labels = folder.label(item.frame, item.index)
        except DataError as error:
            place = f'{camera or "camera"} frame {item.index}'
            self._problems.add(kinds.BAD_LABEL, place, f'{place}: {error}')
            return
        if labels is not None:
            self.labelled[camera].add(maps, labels)
            self.statistics[camera].labelled += 1

    def report(self, options: ReplayOptions) -> JsonDict:
        """Return the report as JSON values; nothing in it depends on the clock."""
        return {
            'program': PROGRAM,
            'bag': self._bag.to_json(),
            'model': self._model.to_json(),
            'cameras': [
                {
                    'camera': camera.camera,
                    'topic': camera.topic,
                    'type': camera.msgtype,
                    **self.statistics[camera.camera].to_json(),
                }
                for camera in self._cameras.values()
            ],
            'ground_truth': {
                camera: frames.record() if len(frames) else {'frames': 0}
                for camera, frames in self.labelled.items()
            },
            'problems': self._problems.to_json(),
            'result': {'storage': options.storage, 'outputs': list(options.outputs)},
        }
