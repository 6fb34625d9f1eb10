# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The peak memory of what is done with 2.46 million tokens; each step in a process of its own."""

import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT)]

import numpy as np  # noqa: E402

IMAGES, HEIGHT, WIDTH, CLASSES = 300, 896, 1792, 19


def memory(root):
    """Print the peak memory of every step."""
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


STEPS = {
    one.__name__: one for one in (images, extraction, backbone, mahalanobis, classifier, pixood)
}


if __name__ == '__main__':
    from trainer.progress import show_progress

    show_progress(False)
    STEPS[sys.argv[2]](Path(sys.argv[1]))
