# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
What an evaluated bag leaves: the result bag, score, mask and obstacles with the input's stamps and
log times, and report.json with index.html.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ood_perception.errors import ConfigError, required
from ood_perception.image.encodings import RAW
from ood_perception.json_files import write_json
from ood_perception.postprocess.output_maps import IMAGES, OutputMaps
from ood_perception.postprocess.tracking import Tracked
from ood_perception.reports.html import write_page
from ood_perception.reports.tables import TITLES, percent
from ood_perception.requirements import install_command
from ood_perception.types import JsonDict

from .messages import DETECTIONS, Cdr
from .statistics import Shown

STORAGES = ('mcap', 'sqlite3')
OUTPUTS = ('score', 'surprisal', 'mask', 'obstacles')
DEFAULT_OUTPUTS = ('score', 'mask', 'obstacles')
NODE = '/road_anomaly'
# 8 is the newest version of metadata.yaml whose QoS entries Humble, too, can read.
_VERSION = 8


class ResultBag:
    """
    A rosbag2 in the making. Use as a context manager; an error leaves no metadata.yaml.

    The same outputs in the same order give the same bytes: nothing of the container is made from
    the clock. Chunks of .mcap are zstd-compressed by the format's own means.
    """

    def __init__(
        self, path: Path, cdr: Cdr, cameras: Sequence[str], storage: str, outputs: Sequence[str]
    ) -> None:
        """Create the folder `path`; ConfigError for an unknown storage or output."""
        unknown = [name for name in outputs if name not in OUTPUTS]
        if unknown or not outputs:
            raise ConfigError(f'outputs {" ".join(outputs)}: use some of {", ".join(OUTPUTS)}')
        if storage not in STORAGES:
            raise ConfigError(f'storage {storage!r}: use {" or ".join(STORAGES)}')
        remedy = f'writing a bag needs rosbags: {install_command("bags")}'
        rosbag2 = required('rosbags.rosbag2', remedy)
        self._cdr, self._outputs = cdr, tuple(outputs)
        plugin = getattr(rosbag2.StoragePlugin, storage.upper())
        self._writer: Any = rosbag2.Writer(path, version=_VERSION, storage_plugin=plugin)
        if storage == 'mcap':
            self._writer.set_compression(
                rosbag2.CompressionMode.STORAGE, rosbag2.CompressionFormat.ZSTD
            )
        self._writer.open()
        self._connections = {
            (camera, name): self._writer.add_connection(
                output_topic(camera, name),
                RAW if name in IMAGES else DETECTIONS,
                typestore=cdr.store,
                offered_qos_profiles=[_quality()],
            )
            for camera in cameras
            for name in self._outputs
        }

    def write(self, tracked: Tracked, maps: OutputMaps, time_ns: int) -> None:
        """Write one frame's outputs; time_ns: the log time of its message."""
        for name in self._outputs:
            connection = self._connections[tracked.detection.frame.camera, name]
            self._writer.write(connection, time_ns, self._cdr.output(name, tracked, maps))

    def __enter__(self) -> ResultBag:
        return self

    def __exit__(self, kind: object, *error: object) -> None:
        if kind is None:
            self._writer.close()
        else:
            self._writer.abort()


def _quality() -> Any:
    """
    Return the quality of service of the outputs, as rosbag2 records it: reliable, depth 1.

    Without one, newer versions of `ros2 bag play` have nothing to parse and older ones guess.
    """
    from rosbags import interfaces as kinds

    unbounded = kinds.QosTime(*divmod((1 << 63) - 1, 1_000_000_000))
    return kinds.Qos(
        history=kinds.QosHistory.KEEP_LAST,
        depth=1,
        reliability=kinds.QosReliability.RELIABLE,
        durability=kinds.QosDurability.VOLATILE,
        deadline=unbounded,
        lifespan=unbounded,
        liveliness=kinds.QosLiveliness.AUTOMATIC,
        liveliness_lease_duration=unbounded,
        avoid_ros_namespace_conventions=False,
    )


def output_topic(camera: str, name: str) -> str:
    """Return the topic on which the node publishes an output of a camera."""
    return f'{NODE}/{camera}/{name}' if camera else f'{NODE}/{name}'


PROGRAM = 'evaluate_bag'


def write_reports(folder: Path, report: JsonDict, shown: Sequence[Shown]) -> None:
    """Write both files; shown: frames with their overlays."""
    write_json(folder / 'report.json', report, indent=2)
    settings = report['model']['settings']
    write_page(
        folder / 'index.html',
        'bag.html.j2',
        program=PROGRAM,
        report=report,
        topics=[
            f'{row["topic"]} ({row["type"]}, {row["messages"]})' for row in report['bag']['topics']
        ],
        truth=truth_table(report['ground_truth']) if report['ground_truth'] else None,
        shown=shown,
        result_topics=[
            output_topic(row['camera'], name)
            for row in report['cameras']
            for name in report['result']['outputs']
        ],
        settings={name: str(value) for name, value in settings.items() if value not in ('', [])},
    )


def truth_table(truth: JsonDict) -> tuple[list[str], list[list[str]]]:
    """Return the header and the rows of the metrics by camera."""
    names = [name for name in TITLES if any(name in r.get('metrics', {}) for r in truth.values())]
    rows = [
        [
            camera or '-',
            str(record['frames']),
            *(
                percent(record['metrics'][name], record['intervals'][name])
                if record['frames']
                else '-'
                for name in names
            ),
        ]
        for camera, record in truth.items()
    ]
    return ['camera', 'labelled frames', *(TITLES[name] for name in names)], rows
