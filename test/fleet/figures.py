# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
The figures of docs/scaling.md, measured on this machine.

    python test/fleet/figures.py FOLDER processes together recordings cost memory

FOLDER: new, with room for 3 GB. What is measured is the program's own: its command lines, or, for
`cost` and `memory`, the functions behind them, in one thread. `cost` needs CamVid, see OOD_DATA.
"""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / 'test' / 'helpers')]

import numpy as np  # noqa: E402
from memory_steps import memory  # noqa: E402

TRAININGS = {
    'PixOOD': ('recipe', ()),
    'Mahalanobis': ('recipe', ('head.kind=baseline', 'head.score=mahalanobis')),
    'UEM': ('generative', ()),
    'RPL': ('rpl', ('mixes.probability=1.0',)),
}


def processes(root):
    """Train four kinds of heads by 1, 2 and 4 processes of torchrun; print what differs."""
    import rpl_recipes
    import torchrun
    import uem_recipes
    from miniature_recipes import LARGER, write_miniature

    patches, decoders = write_miniature(root / 'patches'), uem_recipes.write_places(root / 'uem')
    uem_recipes.recipe_of(decoders, 'generative')
    rpl_recipes.recipe_of(decoders)
    for name, (recipe, changes) in TRAININGS.items():
        place = patches if recipe == 'recipe' else decoders
        larger = LARGER if place is patches else ()
        words = [word for change in (*changes, *larger) for word in ('--set', change)]
        trained = {}
        for count in (1, 2, 4):
            out = place / f'{name}_by_{count}'
            start = time.monotonic()
            torchrun.end(torchrun.start(place / f'{recipe}.yaml', out, count, *words), out)
            trained[count] = _arrays(out), _scores(out, place / 'data'), time.monotonic() - start
        for count in (2, 4):
            _tell_difference(name, count, trained[1], trained[count])


def _arrays(out):
    """Return all arrays that were learned, by artifact and name; curves of counts apart."""
    from safetensors.numpy import load_file

    found = {}
    for file in [*out.glob('*-*/*.safetensors'), *out.glob('*-*/statistics.npz')]:
        arrays = load_file(file) if file.suffix == '.safetensors' else dict(np.load(file))
        kind = file.parent.name.rpartition('-')[0]
        found |= {f'{kind}/{file.stem}/{key}': value for key, value in arrays.items()}
    return {key: value.astype(np.float64) for key, value in found.items()}


def _scores(out, data):
    """Return the surprisal of the training images by the bundle, as ONNX Runtime serves it."""
    import cv2

    from ood_perception.bundle.store import load_bundle
    from ood_perception.engines import create_engine
    from ood_perception.engines.base import EngineOptions

    files = sorted((data / 'train' / 'images').iterdir())
    bundle = load_bundle(out / 'bundle')
    size = bundle.manifest.input.width, bundle.manifest.input.height
    images = np.stack([cv2.resize(cv2.imread(str(file))[..., ::-1], size) for file in files])
    with create_engine(bundle, EngineOptions('onnxruntime', 'f32', 1)) as engine:
        return engine.run(images, engine.class_vector(bundle.manifest.in_distribution)).surprisal


def _tell_difference(name, count, one, many):
    assert one[0].keys() == many[0].keys()
    print(f'{name} by {count}: {many[2]:.0f} s, by 1: {one[2]:.0f} s', flush=True)
    kinds = {}
    for key, value in one[0].items():
        apart = 'held_out' in key or 'paper' in key  # curves of counts; of the Gaussians
        kind = key.partition('/')[0] + (', curves' if apart else '')
        kinds.setdefault(kind, []).append(
            (np.abs(many[0][key] - value).max(), np.abs(value).max())
        )
    for kind, pairs in kinds.items():
        difference, value = np.max(pairs, axis=0)
        print(f'  {kind}: {difference:.1e} of values up to {value:.1f}')
    found = np.abs(one[1] - many[1])
    flips = ((one[1] >= 2) != (many[1] >= 2)).mean()
    print(f'  surprisal: most {found.max():.1e}, median {np.median(found):.1e}, mask {flips:.1e}')


def together(root):
    """Train networks by 1, 2 and 4 processes that share every batch; print what differs."""
    from together import trained_by

    learned = {count: trained_by(count, root) for count in (1, 2, 4)}
    for name in learned[1]:
        for count in (2, 4):
            pairs = [
                ((value - learned[count][name][key]).abs().max(), value.abs().max())
                for key, value in learned[1][name].items()
                if value.is_floating_point() and key != 'history'
            ]
            difference, most = np.max(np.array(pairs), axis=0)
            print(f'{name} by {count}: {difference:.1e} of values up to {most:.1f}')


def recordings(root):
    """Evaluate 40 recordings, one of them cut, by 1 and by 2 workers, some of which are killed."""
    from bundles import write_tiny_bundle
    from recordings import cut, write_fleet

    cut(write_fleet(root / 'fleet', 40, frames=40)[17])
    write_tiny_bundle(root / 'tiny', height=238, width=322)
    one = _fleet(root, 'one', 1)
    report = _merged(one)
    for name, workers, kill in (
        ('two', 2, ''),
        ('worker_killed', 2, 'worker'),
        ('driver_killed', 2, 'driver'),
        ('four', 4, ''),
    ):
        assert _merged(_fleet(root, name, workers, kill)) == report, name
    told = json.loads((one / 'report.json').read_text())
    print(f'{told["done"]} done, {told["cameras"][0]["evaluated"]} frames, equal in every number')
    print(
        'failed:', *[Path(row['recording']).name + ': ' + row['reason'] for row in told['failed']]
    )
    again = _fleet(root, 'one', 1)
    assert _merged(again) == report


def _fleet(root, name, workers, kill=''):
    """Evaluate the fleet; kill a worker or the driver in the middle; return the folder."""
    out = root / name
    words = [root / 'fleet', '--bundle', root / 'tiny', '--threads', 1, '--precision', 'f32']
    words += ['--roi-mode', 'none', '--ground-truth', '/front/labels', '--ray', 'local']
    words += ['--workers', workers, '--out', out]
    command = [sys.executable, '-m', 'ood_perception.cli.evaluate_bag', *map(str, words)]
    start, cpu, driver = time.monotonic(), {}, subprocess.Popen(command, cwd=ROOT)
    while driver.poll() is None:
        entries = _entries(out)
        for pid in {int(entry['worker'].rpartition(':')[2]) for entry in entries}:
            cpu[pid] = _cpu_seconds(pid) or cpu.get(pid, 0.0)
        if kill and len(entries) >= 10:
            os.kill(driver.pid if kill == 'driver' else pid, signal.SIGKILL)
            if kill == 'driver':
                driver.wait()
                before = {path: path.stat().st_mtime_ns for path in _done(out)}
                driver = subprocess.Popen(command, cwd=ROOT)
            kill = ''
        time.sleep(0.2)
    assert driver.returncode == 3, driver.returncode
    if 'driver' in name:
        assert {path: path.stat().st_mtime_ns for path in before} == before
        print(f'{len(before)} recordings were done when the driver was killed: not touched again')
    _tell_fleet(name, out, time.monotonic() - start, cpu)
    return out


def _done(out):
    return [*out.glob('recordings/*/report.json')]


def _entries(out):
    return [json.loads(path.read_text()) for path in out.glob('ledger/*.json')]


def _cpu_seconds(pid):
    """Return the CPU time of a process and its threads so far, 0 for one that is gone."""
    try:
        fields = Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf('SC_CLK_TCK')


def _tell_fleet(name, out, wall, cpu):
    entries = _entries(out)
    times = [path.stat().st_mtime for path in out.glob('ledger/*.json')]
    first = min(times) - entries[times.index(min(times))]['seconds']
    busy = sum(entry['seconds'] for entry in entries)
    attempts = sum(entry['attempts'] for entry in entries)
    print(
        f'{name}: {max(times) - first:.1f} s of work, {wall:.0f} s in all, {busy:.0f} s in '
        f'recordings, {sum(cpu.values()):.0f} CPU seconds of {len(cpu)} workers, {len(entries)} '
        f'entries, {attempts} attempts, load {os.getloadavg()[0]:.1f}',
        flush=True,
    )


def _merged(out):
    """Return all that a report says but who did it when."""
    report = json.loads((out / 'report.json').read_text())
    for row in report['rows'] + report['failed']:
        for name in ('attempts', 'seconds'):
            del row[name]
    names = [row['recording'] for row in report['rows']]
    assert len(names) == len(set(names)) == 40
    return report


def cost(root):
    """Compare predicted with measured core seconds of three stages at three sizes."""
    import torch
    from paths import need_data

    from trainer.backbones import load_backbone
    from trainer.datasets import load_images
    from trainer.recipe import load_recipe

    torch.set_num_threads(1)
    changes = ('classifier.epochs=6', 'condensation.epochs=30', 'condensation.etalons=100')
    recipe = load_recipe(ROOT / 'config' / 'train' / 'pixood_camvid.yaml', changes)
    backbone = load_backbone(recipe.backbone)
    images = load_images('camvid', need_data('camvid'), 'train')
    for count in (6, 12, 24):
        part = images.subset(range(0, 10 * count, 10))
        took, stages = _training(recipe, backbone, part, root / 'cache')
        for one in stages:
            print(
                f'{count} images, {one.name}: predicted {one.core_seconds:.2f}, measured '
                f'{took[one.name]:.2f} core seconds: {one.core_seconds / took[one.name]:.2f}',
                flush=True,
            )


def _training(recipe, backbone, images, cache):
    """Return what the stages of a training took, core seconds by name, and their predictions."""
    from trainer import cost as model
    from trainer.features import extract
    from trainer.heads.pixood.condensation import condense
    from trainer.nets.patches import gather_tokens, select_patches
    from trainer.training.patch_classifier import ClassifierRun

    layers, names, took = recipe.backbone.layers, images.classes.names, {}

    def timed(stage, work, *words):
        start = time.process_time()
        result = work(*words)
        took[stage] = min(time.process_time() - start, took.get(stage, np.inf))
        return result

    features = timed('extraction', extract, images, backbone, layers, recipe.view, cache)
    count, sixth = len(images), len(images) // 6
    sets = features.subset(range(sixth, count)), features.subset(range(sixth))
    run = ClassifierRun(*sets, [f'tokens_{n}' for n in layers], len(names), recipe.classifier)
    timed('classifier', run.fit)
    settings = replace(recipe.patches, fewest_patches=1, fewest_images=1)
    tokens = gather_tokens(
        features, f'tokens_{layers[-1]}', select_patches(features, names, settings)
    )
    for _ in range(3):  # short, and others may be at work here
        timed('condensation', condense, tokens, recipe.condensation)
    used = [len(one) for one in tokens if len(one)]
    amounts = model.Amounts(
        extracted=count,
        train=count - sixth,
        select=sixth,
        fitted=count,
        classes=len(used),
        patches=sum(used) / len(used) / count,
    )
    return took, model.predict(recipe, backbone, amounts)


PARTS = {one.__name__: one for one in (processes, together, recordings, cost, memory)}


def main(folder, *parts):
    from trainer.progress import show_progress

    show_progress(False)
    os.environ['OOD_PERCEPTION_CACHE'] = str(Path(folder).absolute() / 'user_cache')
    for part in parts:
        root = Path(folder).absolute() / part
        root.mkdir(parents=True)
        PARTS[part](root)


if __name__ == '__main__':
    main(*sys.argv[1:])
