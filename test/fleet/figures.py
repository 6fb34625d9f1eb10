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

    cut(write_fleet(root / 'fleet', 40, frames=6)[17])
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
        f'{name}: {max(times) - first:.0f} s of work, {wall:.0f} s in all, {busy:.0f} s in '
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


IMAGES, HEIGHT, WIDTH, CLASSES = 300, 896, 1792, 19


def memory(root):
    """Print the peak memory of what is done with 2.46 million tokens, each in its own process."""
    for step in STEPS:
        start = time.monotonic()
        child = subprocess.Popen([sys.executable, __file__, str(root), step])
        _, status, usage = os.wait4(child.pid, 0)
        assert status == 0
        print(
            f'{step}: {usage.ru_maxrss / 2**20:.2f} GiB resident at the most, '
            f'{usage.ru_utime:.0f} CPU seconds, {time.monotonic() - start:.0f} s',
            flush=True,
        )


def images(root):
    """Write IMAGES JPEGs of noise and labels of CLASSES stripes, the last class a rare one."""
    import cv2

    for part in ('images', 'labels'):
        (root / 'data' / 'train' / part).mkdir(parents=True)
    names = ', '.join(f'{{name: c{number}}}' for number in range(CLASSES))
    (root / 'data' / 'classes.yaml').write_text(f'classes: [{names}]\n')
    noise = np.random.default_rng(0).integers(0, 255, (HEIGHT // 8, WIDTH // 8, 3), np.uint8)
    labels = np.tile((np.arange(WIDTH) * (CLASSES - 1) // WIDTH).astype(np.uint8), (HEIGHT, 1))
    labels[:28, :140] = CLASSES - 1  # 20 patches
    for number in range(IMAGES):
        image = np.roll(noise, 37 * number, (0, 1)) // 2 + labels[::8, ::8, None] * 7
        image = cv2.resize(image, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
        cv2.imwrite(str(root / 'data' / 'train' / 'images' / f'{number:03d}.jpg'), image)
        cv2.imwrite(str(root / 'data' / 'train' / 'labels' / f'{number:03d}.png'), labels)


LAYER = 'keys_0'  # of width 384 as all layers, and the first that can be had


def extraction(root):
    """Extract the tokens of all images; return them."""
    import torch

    from trainer.backbones import load_backbone
    from trainer.datasets import load_images
    from trainer.features import View, extract
    from trainer.recipe import load_recipe

    torch.set_num_threads(1)
    recipe = load_recipe(ROOT / 'config' / 'train' / 'pixood_camvid.yaml')
    images = load_images('folders', root / 'data', 'train')
    view = View(HEIGHT, WIDTH, 'stretch')
    return extract(images, load_backbone(recipe.backbone), [LAYER], view, root / 'cache')


def backbone(root):
    """Send one image of that size through all blocks of a ViT-S."""
    import torch

    from trainer.backbones import load_backbone
    from trainer.features import forward_tokens
    from trainer.recipe import load_recipe

    torch.set_num_threads(1)
    recipe = load_recipe(ROOT / 'config' / 'train' / 'pixood_camvid.yaml')
    baked = load_backbone(recipe.backbone).baked(HEIGHT, WIDTH, recipe.backbone.layers)
    list(forward_tokens(baked, np.zeros((1, HEIGHT, WIDTH, 3), np.uint8), 'f32'))


def mahalanobis(root):
    """Fit class means and covariance."""
    from trainer.heads.baselines.training import Columns, fit_mahalanobis
    from trainer.nets.patches import gather_tokens, select_patches

    features = extraction(root)
    selection = select_patches(features, _names())
    tokens = gather_tokens(features, LAYER, selection)
    fit_mahalanobis([Columns([one.tokens]) for one in tokens], 1e-3)


def classifier(root):
    """Train PixOOD's classifier on every pixel of forty images, in batches of four."""
    from trainer.nets.patch_classifier import ClassifierConfig, save_classifier
    from trainer.training.patch_classifier import ClassifierRun

    features = extraction(root)
    config = ClassifierConfig(hidden=64, epochs=1)
    sets = features.subset(range(40)), features.subset(range(IMAGES - 2, IMAGES))
    trained = ClassifierRun(*sets, [LAYER], CLASSES, config).fit()
    save_classifier(root / 'classifier.safetensors', trained.model)


def pixood(root):
    """Fit etalons, densities and tables."""
    from trainer.heads.pixood.config import CondensationSettings
    from trainer.heads.pixood.training import fit_pixood
    from trainer.nets.patch_classifier import load_classifier
    from trainer.nets.patches import PatchSettings

    features, network = extraction(root), load_classifier(root / 'classifier.safetensors')
    settings = CondensationSettings(etalons=20, epochs=1)
    fit_pixood(features, network, _names(), PatchSettings(), settings)


def _names():
    return [f'c{number}' for number in range(CLASSES)]


PARTS = {one.__name__: one for one in (processes, together, recordings, cost, memory)}
STEPS = {
    one.__name__: one for one in (images, extraction, backbone, mahalanobis, classifier, pixood)
}


def main(folder, *parts):
    from trainer.progress import show_progress

    show_progress(False)
    os.environ['OOD_PERCEPTION_CACHE'] = str(Path(folder).absolute() / 'user_cache')
    for part in parts:
        if part in STEPS:
            STEPS[part](Path(folder))
        else:
            root = Path(folder).absolute() / part
            root.mkdir(parents=True)
            PARTS[part](root)


if __name__ == '__main__':
    main(*sys.argv[1:])
