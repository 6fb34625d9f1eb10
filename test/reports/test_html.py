# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The HTML pages and their parts, read back by the standard library's parser."""

import re
import sys
from html.parser import HTMLParser

import cv2
import numpy as np
import pytest

from ood_perception.errors import DataError, DependencyError
from ood_perception.reports import html
from ood_perception.reports.tables import percent
from ood_perception.requirements import install_command

VOID = {'meta', 'img', 'br'}
PAGE = """{% extends 'page.html.j2' %}
{% from 'parts.html.j2' import contents, drawing, facts, figure, how_to_read, section, table %}
{% block title %}{{ 'A <title>' }}{% endblock %}
{% block body %}"""


class Outline(HTMLParser):
    """Collects text, ids, links and image sources; fails on tags that do not nest."""

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


def outline(body, **values):
    """Return the outline of a page with this body."""
    template = html.environment().from_string(f'{PAGE}{body}{{% endblock %}}')
    return Outline(template.render(values))


def test_whatever_comes_in_is_shown_and_not_run():
    evil = '<script>alert("x")</script> & "quotes"'
    got = outline(
        '{{ evil }}{{ facts({evil: evil}) }}{{ table([evil], [[evil]], evil) }}'
        '{% call section(evil) %}{% call how_to_read() %}{{ evil }}{% endcall %}{% endcall %}'
        '{{ contents([evil]) }}{{ figure("a.jpg", evil) }}{{ drawing("", evil) }}',
        evil=evil,
    )
    assert 'script' not in got.tags
    assert sum(evil in words for words in got.words) == 11
    assert 'A <title>' in got.words


def test_links_reach_their_sections():
    titles = ['Headline numbers', 'road_anomaly_dev: worst (10) frames']
    got = outline(
        '{{ contents(titles) }}{% for title in titles %}{% call section(title) %}{% endcall %}'
        '{% endfor %}',
        titles=titles,
    )
    assert got.links == [f'#{name}' for name in got.ids]
    assert len(set(got.ids)) == 2


def test_images_lie_beside_the_page_or_inside_it(tmp_path):
    photo = np.zeros((50, 200, 3), np.uint8)
    photo[:, :100, 0] = 255  # red on the left: RGB, not BGR
    name = html.save_jpeg(tmp_path, 'left.jpg', photo, width=100)
    got = outline('{{ figure(a, "1") }}{{ figure(b, "2") }}', a=name, b=html.embedded(photo))
    assert got.sources[0] == 'left.jpg'
    assert got.sources[1].startswith('data:image/jpeg;base64,')
    assert got.links == ['left.jpg']
    back = cv2.imread(str(tmp_path / 'left.jpg'))
    assert back.shape == (25, 100, 3)
    assert back[12, 20, 2] > 240
    assert back[12, 20, 0] < 20


def test_an_interval_breaks_before_its_bracket_alone():
    got = outline('{{ table(["a"], [["1.0 [0.5, 2.0]"]], unbroken=true) }}')
    assert '1.0 [0.5,\u00a02.0]' in got.words


def test_a_value_that_is_missing_is_an_error():
    with pytest.raises(Exception, match="'nothing' is undefined"):
        outline('{{ nothing }}')


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / 'file').write_text('')
    with pytest.raises(DataError, match=r'file/index\.html cannot be written'):
        html.write_page(
            tmp_path / 'file' / 'index.html', 'comparison.html.j2', first='', second='', tables=[]
        )


def test_without_jinja2_the_extra_is_named(monkeypatch):
    html.environment.cache_clear()
    monkeypatch.setitem(sys.modules, 'jinja2', None)
    with pytest.raises(DependencyError, match=re.escape(install_command('report'))):
        html.environment()


def test_shares_are_written_in_percent_and_undefined_ones_as_a_dash():
    assert percent(0.8312, (0.7, 0.9)) == '83.1 [70.0, 90.0]'
    assert percent(0.8312, (None, None)) == '83.1'
    assert percent(None, (0.7, 0.9)) == '-'
    assert [html.fraction(value) for value in (0.8312, None)] == ['83.1 %', '-']


def test_tables_read_as_markdown():
    template = "{% from 'parts.md.j2' import table %}{{ table(['a', 'b'], [['1', '2']]) }}"
    got = html.environment().overlay(autoescape=False).from_string(template).render()
    assert got == '| a | b |\n| --- | --- |\n| 1 | 2 |\n'
