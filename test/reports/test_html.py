# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The HTML page writer, read back by the standard library's parser."""

from html.parser import HTMLParser

import cv2
import numpy as np
import pytest

from ood_perception.errors import DataError
from ood_perception.reports import html as page
from ood_perception.reports.markdown import markdown_table, percent

VOID = {'meta', 'img', 'br'}


class Outline(HTMLParser):
    """Collects text, ids, links and picture sources; fails on tags that do not nest."""

    def __init__(self, text):
        super().__init__()
        self.open, self.words, self.ids, self.links, self.sources = [], [], [], [], []
        self.tags = []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        self.tags.append(tag)
        self.ids += [values['id']] if 'id' in values else []
        self.links += [values['href']] if 'href' in values else []
        self.sources += [values['src']] if 'src' in values else []
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


def outline(tmp_path, parts):
    return Outline(page.write_page(tmp_path / 'index.html', 'A <title>', parts).read_text())


def test_whatever_comes_in_is_shown_and_not_run(tmp_path):
    evil = '<script>alert("x")</script> & "quotes"'
    got = outline(
        tmp_path,
        [
            evil,
            page.facts({evil: evil}),
            page.table([evil], [[evil]], caption=evil),
            page.section(evil, [page.paragraph(evil)], how_to_read=evil),
            page.bullets([evil]),
            page.figure('a.jpg', evil),
        ],
    )
    assert 'script' not in got.tags
    assert sum(evil in words for words in got.words) == 11
    assert 'A <title>' in got.words


def test_links_reach_their_sections(tmp_path):
    titles = ['Headline numbers', 'road_anomaly_dev: worst (10) frames']
    got = outline(tmp_path, [page.contents(titles), *(page.section(t, []) for t in titles)])
    assert got.links == [f'#{name}' for name in got.ids]
    assert len(set(got.ids)) == 2


def test_pictures_lie_beside_the_page_or_inside_it(tmp_path):
    picture = np.zeros((50, 200, 3), np.uint8)
    picture[:, :100, 0] = 255  # red on the left: RGB, not BGR
    name = page.save_jpeg(tmp_path, 'left.jpg', picture, width=100)
    got = outline(
        tmp_path,
        [page.figures([page.figure(name, 'one'), page.figure(page.embedded(picture), 'two')])],
    )
    assert got.sources[0] == 'left.jpg'
    assert got.sources[1].startswith('data:image/jpeg;base64,')
    back = cv2.imread(str(tmp_path / 'left.jpg'))
    assert back.shape == (25, 100, 3)
    assert back[12, 20, 2] > 240
    assert back[12, 20, 0] < 20


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / 'file').write_text('')
    with pytest.raises(DataError, match=r'file/index\.html cannot be written'):
        page.write_page(tmp_path / 'file' / 'index.html', 'x', [])


def test_shares_are_written_in_percent_and_undefined_ones_as_a_dash():
    assert percent(0.8312, (0.7, 0.9)) == '83.1 [70.0, 90.0]'
    assert percent(0.8312, (None, None)) == '83.1'
    assert percent(None, (0.7, 0.9)) == '-'


def test_tables_read_as_markdown():
    got = markdown_table(['a', 'b'], [['1', '2']])
    assert got == '| a | b |\n| --- | --- |\n| 1 | 2 |\n'
