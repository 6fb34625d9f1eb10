# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The pipeline around an engine whose output is known, then with the real ones."""

import threading
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from bundles import backbone_weights, expected_maps, expected_tokens, road_image

from ood_perception.bundle.manifest import ClassSpec, HeadSpec, InputSpec, Manifest, StageSpec
from ood_perception.bundle.store import load_bundle
from ood_perception.engines import create_engine
from ood_perception.engines.base import Engine, EngineOptions
from ood_perception.errors import ConfigError, EngineError, ImageError
from ood_perception.image.geometry import geometry_for, to_network
from ood_perception.image.views import ViewSpec, merged, view_geometry
from ood_perception.pipeline import Pipeline
from ood_perception.postprocess.calibration import HeldOutSample, arrays_of
from ood_perception.postprocess.roi import RoiSettings
from ood_perception.settings import Settings
from ood_perception.types import EngineOutput, Frame

HEIGHT, WIDTH, PATCH, FACTOR = 56, 112, 14, 2
GRID = (HEIGHT // PATCH * FACTOR, WIDTH // PATCH * FACTOR)
CELL = HEIGHT // GRID[0]
WHOLE = Settings(roi=RoiSettings('none'))


def manifest_of(selection='min', classes=('sky', 'road', 'pavement')):
    head = HeadSpec('pixood', 'surprisal', 'labels', FACTOR, selection, 'held-out', classes[1:])
    return Manifest(
        name='known',
        input=InputSpec(HEIGHT, WIDTH, PATCH),
        stages=(StageSpec('head', 'head.onnx', ('image',), ('surprisal', 'labels')),),
        classes=tuple(ClassSpec(name, (0, 0, 0)) for name in classes),
        heads=(head,),
        ground_classes=('road',),
        in_distribution=('road',),
        files={},
    )


class KnownEngine(Engine):
    """Surprisal = red / 50 (a tenth of it if pavement is normal, too), label = green."""

    def __init__(self, manifest, options=None):
        super().__init__(manifest, options or EngineOptions())
        self.batches = []
        self.before = None

    @property
    def compiled_classes(self):
        return self.options.compiled_classes or self.manifest.heads[0].compiled_classes

    @property
    def description(self):
        return {'runtime': 'known'}

    def _run(self, image, in_distribution):
        self.batches.append((image.shape[0], in_distribution.copy()))
        if self.before is not None:
            self.before()
        cells = image[:, CELL // 2 :: CELL, CELL // 2 :: CELL].astype(np.float32)
        surprisal = cells[..., 0] / 50
        if in_distribution.sum() > 1:
            surprisal = surprisal / 10
        return EngineOutput(surprisal, cells[..., 1].astype(np.uint8), {'head': 0.1})


def photo(height=HEIGHT, width=WIDTH, red=10, green=1, seed=None):
    image = np.zeros((height, width, 3), dtype=np.uint8)
    image[..., 0], image[..., 1] = red, green
    if seed is not None:
        image[..., 0] = np.random.default_rng(seed).integers(0, 256, (height, width))
    return image


def pipeline_of(settings=WHOLE, manifest=None):
    manifest = manifest or manifest_of()
    return Pipeline(SimpleNamespace(manifest=manifest), KnownEngine(manifest), settings)


def assert_same(one, two):
    for name in ('surprisal', 'labels', 'scored', 'mask'):
        np.testing.assert_array_equal(getattr(one, name), getattr(two, name))
    assert one.obstacles == two.obstacles
    assert one.geometry == two.geometry


def test_a_frame_becomes_a_detection():
    image = photo()
    image[14:28, 28:56, 0] = 200
    frame = Frame(image, 'front', 123, 'optical')
    (detection,) = pipeline_of().run([frame])
    expected = np.zeros(GRID, dtype=bool)
    expected[2:4, 4:8] = True
    assert detection.frame is frame
    np.testing.assert_array_equal(detection.mask, expected)
    np.testing.assert_allclose(detection.surprisal, np.where(expected, 4, 0.2), rtol=1e-6)
    assert (detection.labels == 1).all()
    assert detection.scored.all()
    assert detection.false_alarm_rate == 0.01
    (obstacle,) = detection.obstacles
    assert (obstacle.x, obstacle.y, obstacle.width, obstacle.height) == (28, 14, 28, 14)
    assert (obstacle.area, obstacle.surprisal) == (14 * 28, 4)
    times = detection.times
    assert min(times.preprocess_ms, times.inference_ms, times.postprocess_ms) > 0


def test_cameras_of_any_size_go_through_as_one_batch_and_as_they_would_alone():
    pipeline = pipeline_of()
    sizes = [(56, 112), (108, 192), (120, 90), (56, 112)]
    frames = [
        Frame(photo(*size, seed=number), f'camera_{number}') for number, size in enumerate(sizes)
    ]
    together = pipeline.run(frames)
    assert [batch for batch, _ in pipeline.engine.batches] == [4]
    for frame, detection in zip(frames, together, strict=True):
        assert detection.frame is frame
        (alone,) = pipeline_of().run([frame])
        assert_same(detection, alone)
        geometry = geometry_for(frame.image.shape[:2], (HEIGHT, WIDTH))
        assert detection.geometry == geometry
        seen = to_network(frame.image, geometry)[CELL // 2 :: CELL, CELL // 2 :: CELL, 0]
        np.testing.assert_array_equal(detection.surprisal, seen.astype(np.float32) / 50)


def test_reruns_give_the_same_bits():
    frame = Frame(photo(300, 500, seed=5))
    pipeline = pipeline_of(replace(WHOLE, hysteresis_rate=0.0001, minimum_area=5.0))
    first, *others = [pipeline.run([frame])[0] for _ in range(4)]
    for other in others:
        assert_same(first, other)


@pytest.mark.parametrize(
    'image',
    [
        np.zeros((10, 10), np.uint8),
        np.zeros((10, 10, 4), np.uint8),
        np.zeros((10, 10, 3), np.float32),
        np.zeros((0, 10, 3), np.uint8),
        np.zeros((1, 60000, 3), np.uint8),
    ],
    ids=['grey', 'rgba', 'float', 'empty', 'ribbon'],
)
def test_a_bad_frame_is_named_and_costs_no_other(image):
    pipeline = pipeline_of()
    good = Frame(photo(seed=1), 'front')
    bad = Frame(image, 'rear')
    first, error, last = pipeline.run_each([good, bad, good])
    assert isinstance(error, ImageError)
    assert_same(first, last)
    assert_same(first, pipeline.run([good])[0])
    with pytest.raises(ImageError):
        pipeline.run([good, bad])
    assert pipeline.run_each([bad])[0].args
    assert pipeline.run([]) == []


def test_detections_own_their_memory():
    class Reusing(KnownEngine):
        buffer = np.zeros((1, *GRID), np.float32)

        def _run(self, image, in_distribution):
            output = super()._run(image, in_distribution)
            self.buffer[:] = output.surprisal
            return EngineOutput(self.buffer, output.labels, {})

    manifest = manifest_of()
    pipeline = Pipeline(SimpleNamespace(manifest=manifest), Reusing(manifest), WHOLE)
    (first,) = pipeline.run([Frame(photo(red=100))])
    pipeline.run([Frame(photo(red=200))])
    assert (first.surprisal == 2).all()


@pytest.mark.parametrize('value', [np.nan, np.inf])
def test_a_surprisal_that_is_no_number_is_refused(value):
    class Broken(KnownEngine):
        def _run(self, image, in_distribution):
            output = super()._run(image, in_distribution)
            output.surprisal[0, 3, 3] = value
            return output

    manifest = manifest_of()
    pipeline = Pipeline(SimpleNamespace(manifest=manifest), Broken(manifest), WHOLE)
    with pytest.raises(EngineError, match='not finite'):
        pipeline.run([Frame(photo())])


def test_an_output_of_another_grid_is_refused():
    class Other(KnownEngine):
        def _run(self, image, in_distribution):
            output = super()._run(image, in_distribution)
            return EngineOutput(output.surprisal[:, 1:], output.labels[:, 1:], {})

    manifest = manifest_of()
    pipeline = Pipeline(SimpleNamespace(manifest=manifest), Other(manifest), WHOLE)
    with pytest.raises(EngineError, match='expected'):
        pipeline.run([Frame(photo())])


def test_settings_are_replaced_between_frames():
    frame = Frame(photo(seed=3))
    pipeline = pipeline_of()
    for rate in (0.5, 0.01, 0.001):
        pipeline.settings = replace(WHOLE, false_alarm_rate=rate)
        (detection,) = pipeline.run([frame])
        assert detection.false_alarm_rate == rate
        np.testing.assert_array_equal(
            detection.mask, 10.0 ** -detection.surprisal.astype(float) <= rate
        )
    image = photo(green=0)
    image[28:, :, 1] = 1
    (everything,) = pipeline.run([Frame(image)])
    pipeline.settings = Settings()
    (ground,) = pipeline.run([Frame(image)])
    assert everything.scored.all()
    np.testing.assert_array_equal(ground.scored, ground.labels == 1)


def test_a_change_during_a_run_counts_from_the_next_run_on():
    pipeline = pipeline_of()
    old = pipeline.engine
    new = KnownEngine(manifest_of(), EngineOptions(compiled_classes=('sky', 'road', 'pavement')))
    stricter = replace(WHOLE, false_alarm_rate=0.001, in_distribution=('sky', 'road'))

    def change():
        thread = threading.Thread(target=pipeline.update, args=(stricter, new))
        thread.start()
        thread.join()

    old.before = change
    (before,) = pipeline.run([Frame(photo())])
    (after,) = pipeline.run([Frame(photo())])
    assert before.false_alarm_rate == 0.01
    assert after.false_alarm_rate == 0.001
    assert pipeline.engine is new
    assert old.batches[0][1].tolist() == [1, 0]
    assert new.batches[0][1].tolist() == [1, 1, 0]


def test_refused_settings_leave_the_old_ones():
    pipeline = pipeline_of()
    with pytest.raises(ConfigError, match=r'water.*sky, road, pavement'):
        pipeline.settings = replace(WHOLE, in_distribution=('water',))
    with pytest.raises(ConfigError, match=r'sky: not compiled.*road, pavement'):
        pipeline.settings = replace(WHOLE, in_distribution=('road', 'sky'))
    with pytest.raises(ConfigError, match=r'roi classes mud'):
        pipeline.settings = Settings(roi=RoiSettings(classes=('mud',)))
    assert pipeline.settings is WHOLE
    assert pipeline.run([Frame(photo())])


def test_another_engine_takes_over():
    pipeline = pipeline_of()
    old = pipeline.engine
    new = KnownEngine(manifest_of())
    pipeline.update(engine=new)
    pipeline.run([Frame(photo())])
    assert (len(old.batches), len(new.batches)) == (0, 1)


def test_the_class_choice_reaches_the_engine_only_where_it_counts():
    pipeline = pipeline_of()
    pipeline.run([Frame(photo())])
    pipeline.settings = replace(WHOLE, in_distribution=('road', 'pavement'))
    pipeline.run([Frame(photo())])
    assert [vector.tolist() for _, vector in pipeline.engine.batches] == [[1, 0], [1, 1]]
    unified = pipeline_of(manifest=manifest_of('unified'))
    unified.run([Frame(photo())])
    assert unified.engine.batches[0][1].tolist() == [1, 1]
    with pytest.raises(ConfigError, match='no class choice'):
        unified.settings = replace(WHOLE, in_distribution=('pavement',))


def test_polygons_follow_the_camera():
    half = ((0.0, 0.0), (0.5, 0.0), (0.5, 1.0), (0.0, 1.0))
    roi = RoiSettings('none', ignore_polygons={'rear': (half,)})
    pipeline = pipeline_of(Settings(roi=roi))
    front, rear = pipeline.run([Frame(photo(), 'front'), Frame(photo(), 'rear')])
    assert front.scored.all()
    assert not rear.scored[:, : GRID[1] // 2].any()
    assert rear.scored[:, GRID[1] // 2 :].all()


def test_a_stream_that_changes_its_size_is_followed_without_growing():
    pipeline = pipeline_of()
    for width in range(60, 260):
        (detection,) = pipeline.run([Frame(photo(50, width))])
        assert detection.geometry.camera_width == width
    assert len(pipeline._state.views) <= 64


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        ({'false_alarm_rate': 0.0}, r'inside \(0, 1\)'),
        ({'false_alarm_rate': 1.0}, r'inside \(0, 1\)'),
        ({'false_alarm_rate': float('nan')}, r'inside \(0, 1\)'),
        ({'hysteresis_rate': 0.02}, r'only be stricter'),
        ({'hysteresis_rate': -0.1}, r'only be stricter'),
        ({'minimum_area': -1.0}, r'0 or more'),
        ({'minimum_area': float('inf')}, r'0 or more'),
    ],
)
def test_wrong_settings_are_refused(arguments, message):
    with pytest.raises(ConfigError, match=message):
        Settings(**arguments)


@pytest.fixture(scope='module', params=['openvino', 'onnxruntime'])
def real_pipeline(request, tiny_bundle):
    pytest.importorskip(request.param)
    bundle = load_bundle(tiny_bundle)
    with create_engine(bundle, EngineOptions(request.param, precision='f32', threads=1)) as engine:
        yield Pipeline(bundle, engine, WHOLE)


def test_real_engines_give_the_closed_form_from_camera_to_obstacle(real_pipeline):
    box = (350, 280, 210, 140)
    image = road_image(560, 840, box)
    real_pipeline.settings = WHOLE
    (detection,) = real_pipeline.run([Frame(image)])
    seen = to_network(image, detection.geometry)[None]
    classes = ('Road', 'Pavement', 'Sky')
    tokens = expected_tokens(seen, backbone_weights(14, 0), 14)
    surprisal, labels = expected_maps(tokens, 2, classes, classes, ('Road',))
    np.testing.assert_allclose(detection.surprisal, surprisal[0], rtol=1e-3, atol=1e-3)
    assert np.mean(detection.labels == labels[0]) > 0.99
    on_road = [o for o in detection.obstacles if o.y > 560 // 4]
    (found,) = on_road
    x, y, width, height = box
    # To within one cell (70 camera pixels): the upsampling spreads the object that far.
    assert (found.x, found.y) == pytest.approx((x, y), abs=70)
    assert (found.x + found.width, found.y + found.height) == pytest.approx(
        (x + width, y + height), abs=70
    )


def test_real_engines_in_the_ground_region_with_other_classes(real_pipeline):
    frames = [Frame(road_image(560, 840, seed=1)), Frame(road_image(300, 300, seed=2), 'rear')]
    real_pipeline.settings = Settings()
    first = real_pipeline.run(frames)
    for one, two in zip(first, real_pipeline.run(frames), strict=True):
        assert_same(one, two)
    for detection in first:
        assert 0.4 < detection.scored.mean() < 0.8
        assert not detection.mask[4:].any()  # rows 2 and 3 mix road with sky
    real_pipeline.settings = replace(WHOLE, in_distribution=('Sky',))
    (reversed_roles,) = real_pipeline.run(frames[:1])
    assert reversed_roles.mask[4:].all()
    assert not reversed_roles.mask[0].any()


def bundle_of_one_that_flags_too_little(tmp_path):
    """Return manifest and bundle with held-out pixels by which surprisal is about doubled."""
    rng = np.random.default_rng(0)
    own = -np.log10(rng.random((20_000, 2))) / 2  # a head that flags too little, for either class
    sample = HeldOutSample(('road', 'pavement'), own, rng.integers(0, 2, 20_000), np.ones(20_000))
    np.savez(tmp_path / 'calibration.npz', **arrays_of(sample))
    manifest = manifest_of()
    head = replace(manifest.heads[0], set_calibration='calibration.npz')
    manifest = replace(manifest, heads=(head,))
    bundle = SimpleNamespace(manifest=manifest, path=lambda file: tmp_path / file)
    return manifest, bundle


def test_the_served_surprisal_is_that_of_the_chosen_set(tmp_path):
    manifest, bundle = bundle_of_one_that_flags_too_little(tmp_path)
    pipeline = Pipeline(bundle, KnownEngine(manifest), WHOLE)
    road = pipeline.run([Frame(photo(red=50))])[0].surprisal  # the engine says 1
    np.testing.assert_allclose(road, 2, atol=0.1)
    pipeline.settings = replace(WHOLE, in_distribution=('road', 'pavement'))
    both = pipeline.run([Frame(photo(red=250))])[0].surprisal  # the engine says 0.5
    np.testing.assert_allclose(both, 2, atol=0.15)


def test_a_score_is_checked_behind_the_curve_as_well(tmp_path):
    """Finite out of the engine, infinite out of the curve."""

    class Large(KnownEngine):
        def _run(self, image, in_distribution):
            output = super()._run(image, in_distribution)
            output.surprisal[0, 3, 3] = 3e38
            return output

    manifest, bundle = bundle_of_one_that_flags_too_little(tmp_path)
    pipeline = Pipeline(bundle, Large(manifest), WHOLE)
    with pytest.raises(EngineError, match='not finite'), np.errstate(over='ignore'):
        pipeline.run([Frame(photo())])


def test_few_held_out_pixels_are_told_and_a_rate_beyond_them_is_refused(tmp_path):
    own = np.random.default_rng(0).random((400, 2))
    truth = np.repeat([0, 1], [350, 50])
    sample = HeldOutSample(('road', 'pavement'), own, truth, np.ones(400))
    np.savez(tmp_path / 'calibration.npz', **arrays_of(sample))
    manifest = manifest_of()
    manifest = replace(
        manifest, heads=(replace(manifest.heads[0], set_calibration='calibration.npz'),)
    )
    bundle = SimpleNamespace(manifest=manifest, path=lambda file: tmp_path / file)
    road = replace(WHOLE, in_distribution=('road',), false_alarm_rate=0.01)
    pavement = replace(road, in_distribution=('pavement',))
    pipeline = Pipeline(bundle, KnownEngine(manifest), road)
    assert '350 held-out pixels' in pipeline.doubt
    for attempt in (pipeline.check, pipeline.update):
        with pytest.raises(ConfigError, match=r'pavement: 50 held-out pixels.*0\.01'):
            attempt(pavement)
    assert pipeline.settings == road
    pipeline.update(replace(pavement, false_alarm_rate=0.1))
    assert '50 held-out pixels' in pipeline.doubt
    with pytest.raises(ConfigError, match='pavement: 50 held-out pixels'):
        Pipeline(bundle, KnownEngine(manifest), pavement)


def test_further_views_go_through_the_engine_in_one_batch_and_the_most_anomalous_counts():
    far = ViewSpec('far', width=0.5)
    plain = manifest_of()
    manifest = replace(plain, input=replace(plain.input, views=(far,)))
    pipeline = pipeline_of(manifest=manifest)
    engine = pipeline.engine
    frames = [Frame(photo(4 * HEIGHT, 4 * WIDTH, seed=seed)) for seed in (1, 2, 3)]
    found = pipeline.run(frames)
    assert [count for count, _ in engine.batches] == [6]
    whole = pipeline_of().run(frames)
    for frame, one, alone in zip(frames, found, whole, strict=True):
        size = frame.image.shape[:2]
        geometry = view_geometry(far, size, (HEIGHT, WIDTH))
        crop = engine.run(to_network(frame.image, geometry)[None], np.array([1, 0], np.float32))
        expected = merged(alone.surprisal, [crop.surprisal[0]], [alone.geometry, geometry])
        np.testing.assert_array_equal(one.surprisal, expected)
        assert (one.surprisal > alone.surprisal).any()
        assert one.geometry == alone.geometry
    pipeline.settings = replace(WHOLE, views=False)
    for one, alone in zip(pipeline.run(frames), whole, strict=True):
        assert_same(one, alone)
    assert engine.batches[-1][0] == 3


def with_views(tmp_path, surprisal):
    rng = np.random.default_rng(0)
    count = len(surprisal)
    truth = rng.integers(0, 2, count)
    sample = HeldOutSample(('road', 'pavement'), surprisal, truth, np.ones(count))
    np.savez(tmp_path / 'calibration.npz', **arrays_of(sample))
    manifest = manifest_of()
    head = replace(manifest.heads[0], set_calibration='calibration.npz')
    size = replace(manifest.input, views=(ViewSpec('far'),))
    manifest = replace(manifest, heads=(head,), input=size)
    return SimpleNamespace(manifest=manifest, path=lambda file: tmp_path / file)


def test_the_whole_image_alone_keeps_a_rate_of_its_own(tmp_path):
    own = -np.log10(np.random.default_rng(1).random((20_000, 1, 2)))
    own = np.concatenate([own, 2 * own], axis=1)  # the view is twice as surprised
    bundle = with_views(tmp_path, own)
    pipeline = Pipeline(bundle, KnownEngine(bundle.manifest), WHOLE)
    frame = Frame(photo(red=100))  # the engine says 2
    np.testing.assert_allclose(pipeline.run([frame])[0].surprisal, 1, atol=0.1)
    pipeline.settings = replace(WHOLE, views=False)
    np.testing.assert_allclose(pipeline.run([frame])[0].surprisal, 2, atol=0.15)


def test_a_bundle_that_was_calibrated_for_all_views_only_refuses_to_do_without(tmp_path):
    bundle = with_views(tmp_path, np.random.default_rng(1).random((20_000, 2)))
    pipeline = Pipeline(bundle, KnownEngine(bundle.manifest), WHOLE)
    for attempt in (pipeline.check, pipeline.update):
        with pytest.raises(ConfigError, match=r'views is false: bundle known .* pack the bundle'):
            attempt(replace(WHOLE, views=False))
    assert pipeline.settings == WHOLE
