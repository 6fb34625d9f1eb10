# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""What compile_bundle does for TensorRT: engines of this GPU, or ahead of time of named ones."""

from __future__ import annotations

import argparse
import dataclasses
import sys

from ood_perception.bundle.store import Bundle
from ood_perception.engines.base import EngineOptions
from ood_perception.engines.golden import read_golden
from ood_perception.engines.plan import Plan, plan_for
from ood_perception.engines.tensorrt.cuda import load_cuda, require_gpu
from ood_perception.engines.tensorrt.engine import chosen_precision, request_for
from ood_perception.engines.tensorrt.engine_cache import KeptEngine, obtain_engine
from ood_perception.engines.tensorrt.module import BuildOptions, TensorRt, load_tensorrt
from ood_perception.errors import ConfigError


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of TensorRT to a parser."""
    group = parser.add_argument_group('TensorRT')
    group.add_argument('--cameras', type=int, default=1, help='frames that one run may hold')
    group.add_argument(
        '--gpu',
        nargs='+',
        default=[],
        metavar='X.Y',
        help='build for these compute capabilities, no GPU needed (TensorRT for RTX)',
    )
    group.add_argument('--workspace', type=int, default=0, metavar='MIB', help='limit, 0: none')
    group.add_argument('--level', type=int, help='how long to search, 0 to 5')
    group.add_argument(
        '--version-compatible', action='store_true', help='for later minor versions, too'
    )
    group.add_argument(
        '--hardware-compatible', action='store_true', help='for every GPU from Ampere on'
    )


def build_engines(bundle: Bundle, options: EngineOptions, arguments: argparse.Namespace) -> bool:
    """
    Build what was asked for, say where it lies, and return whether it can be checked here.

    An engine for a GPU that is not here is checked against the golden vectors where it runs.
    """
    if options.runtime != 'tensorrt':
        if arguments.gpu or arguments.version_compatible or arguments.hardware_compatible:
            raise ConfigError('--gpu and --...-compatible are for --engine tensorrt')
        return True
    trt = load_tensorrt()
    for gpu in arguments.gpu or [require_gpu(load_cuda())[1]]:
        build = BuildOptions(
            max_batch=options.max_batch,
            compute_capability=gpu if trt.is_rtx or arguments.gpu else '',
            version_compatible=arguments.version_compatible,
            hardware_compatible=arguments.hardware_compatible,
            workspace_mib=arguments.workspace,
            optimization_level=arguments.level,
        )
        precision = chosen_precision(options.precision)
        for plan in _plans(bundle, options):
            request = request_for(bundle, plan, precision, gpu, build)
            _say(trt, obtain_engine(trt, request, _tell))
    return not arguments.gpu


def _plans(bundle: Bundle, options: EngineOptions) -> list[Plan]:
    """Return the plan, and the whole head's where the golden check of a cut one needs it."""
    plan = plan_for(bundle, options)
    if set(read_golden(bundle, plan.head).classes) <= set(plan.compiled_classes):
        return [plan]
    return [plan, plan_for(bundle, dataclasses.replace(options, compiled_classes=()))]


def _say(trt: TensorRt, kept: KeptEngine) -> None:
    facts = kept.facts
    done = f'built in {facts.get("build_seconds", 0):.1f} s' if kept.built else 'found'
    print(
        f'engine     {trt.name} {trt.version}, compute capability {facts.get("gpu")}, '
        f'{facts.get("precision")}: {done}, {len(kept.blob) / 1e6:.1f} MB, {kept.path}'
    )


def _tell(text: str) -> None:
    print(text, file=sys.stderr)
