# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""When the demo passes, and that its page says why."""

import re

import numpy as np
import pytest

from ood_perception.demo.report import (
    FrameResult,
    Run,
    latency_chart,
    mask_image,
    write_page,
)
from ood_perception.demo.verdict import check_frame, judge

PATCH = 4.0


def truth():
    """A road of 60 rows below 20 rows of something else, with a 10 x 10 object on it."""
    labels = np.zeros((80, 100), np.uint8)
    labels[:20] = 255
    labels[40:50, 30:40] = 1
    return labels


def mask(*flagged):
    result = np.zeros((80, 100), np.uint8)
    result[:20] = 255
    for place in flagged:
        result[place] = 1
    return result


def test_an_object_is_found_by_a_quarter_of_its_pixels():
    (found,) = check_frame(mask(np.s_[40:43, 30:40]), truth(), PATCH).objects
    assert found.found
    assert found.covered == pytest.approx(0.3)
    assert found.box == (30, 40, 10, 10)
    (missed,) = check_frame(mask(np.s_[40:42, 30:40]), truth(), PATCH).objects
    assert not missed.found


def test_objects_below_two_patches_do_not_count():
    assert check_frame(mask(), truth(), 7.0).objects[0].counted
    assert not check_frame(mask(), truth(), 7.2).objects[0].counted


def test_the_rest_of_the_road_leaves_out_the_surroundings_and_what_is_not_scored():
    check = check_frame(mask(np.s_[0:20], np.s_[36:54, 26:44], np.s_[70:72, 0:10]), truth(), PATCH)
    assert check.road_pixels == 60 * 100 - 18 * 18
    assert check.flagged == 20


def test_passing_needs_the_object_and_the_rate():
    good = check_frame(mask(np.s_[40:50, 30:40]), truth(), PATCH)
    missed = check_frame(mask(), truth(), PATCH)
    loud = check_frame(mask(np.s_[40:50, 30:40], np.s_[70:72]), truth(), PATCH)
    assert judge([good] * 4 + [missed], 0.01).passed
    assert 'found 3 of 5' in judge([good] * 3 + [missed] * 2, 0.01).reasons[0]
    assert '3 times the target 1.00%' in judge([loud], 0.01).reasons[0]
    assert judge([loud], 0.02).passed


def test_an_empty_region_of_interest_and_no_object_fail():
    blind = check_frame(np.full((80, 100), 255, np.uint8), truth(), PATCH)
    assert any('region of interest' in reason for reason in judge([blind], 0.01).reasons)
    empty = check_frame(mask(), np.where(truth() == 1, np.uint8(255), truth()), PATCH)
    assert any('nothing could be found' in reason for reason in judge([empty], 0.01).reasons)


def test_images_without_truth_are_not_judged():
    verdict = judge([], 0.01)
    assert verdict.passed
    assert not verdict.checked


def result(check, name='frame <1>'):
    surprisal = np.full((80, 100), 0.4, np.float32)
    surprisal[:20] = np.nan
    grey = np.full((80, 100, 3), 90, np.uint8)
    return FrameResult(name, grey, grey, surprisal, mask(np.s_[40:50, 30:40]), 42.0, 1, check)


def page_of(tmp_path, **changes):
    check = check_frame(mask(np.s_[40:50, 30:40]), truth(), PATCH)
    values = {
        'source': 'a & b', 'note': 'objects are composed in', 'facts': {'engine': 'openvino'},
        'counters': {'processed': 2, 'dropped': 1}, 'sent': 3, 'node_ms': {},
        'verdict': judge([check], 0.01), 'licences': ('CamVid: non-commercial',),
    } | changes  # fmt: skip
    page = write_page(tmp_path, [result(check), result(None, 'other')], Run(**values))
    return page, ' '.join(page.read_text(encoding='utf-8').split())


def test_the_page_tells_everything_and_needs_only_its_folder(tmp_path):
    page, text = page_of(tmp_path)
    for words in ('passed', 'composed in', '1 dropped', 'a &amp; b', 'frame &lt;1&gt;', 'openvino',
                  'target 1.00%', 'found 1 of 1'.replace('found ', ''), '42 ms', '<svg',
                  'CamVid: non-commercial'):  # fmt: skip
        assert words in text, words
    images = re.findall(r'src="([^"]+)"', text)
    assert len(images) == 8
    assert all((page.parent / name).stat().st_size > 300 for name in images)
    assert 'http' not in text


def test_the_page_of_real_images_does_not_say_composed(tmp_path):
    _, text = page_of(tmp_path, note='')
    assert 'composed' not in text


def test_the_page_of_a_failure_says_why(tmp_path):
    missed = judge([check_frame(mask(), truth(), PATCH)], 0.01)
    _, text = page_of(tmp_path, verdict=missed)
    assert 'failed: the object was found 0 of 1 times' in text


def test_known_places_are_drawn_on_the_mask():
    check = check_frame(mask(np.s_[40:50, 30:40]), truth(), PATCH)
    plain, marked = (mask_image(mask(), one) for one in (None, check))
    assert len(np.unique(plain.reshape(-1, 3), axis=0)) == 2
    drawn = (plain != marked).any(axis=2)
    assert drawn[36:54, 26:44].sum() == drawn.sum() > 0


def test_the_chart_scales_to_its_highest_bar(tmp_path):
    assert latency_chart([10.0, 20.0, 37.0]) == {
        'bars': [10.0, 20.0, 37.0], 'median': 20.0, 'worst': 37.0, 'top': 50.0
    }  # fmt: skip
    assert [latency_chart([ms])['top'] for ms in (0.2, 1.0, 1.5, 100.0, 101.0)] == [
        *(1.0, 1.0, 2.0, 100.0, 200.0)
    ]
    assert latency_chart([]) is None
    _, text = page_of(tmp_path)
    heights = [float(h) for h in re.findall(r'width="0.7" height="([\d.]+)"', text)]
    (scale,) = re.findall(r'scale\([\d.]+ -([\d.]+)\)', text)
    assert heights == [42.0, 42.0]
    assert 50.0 * float(scale) == pytest.approx(138.0)  # the highest tick, below the title
    assert 'median 42' in text
