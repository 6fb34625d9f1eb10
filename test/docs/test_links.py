# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Links between the project's own pages: every file and every heading that is named exists."""

import re
import string

import pytest
from paths import ROOT

yaml = pytest.importorskip('yaml')

DOCS = ROOT / 'docs'
PAGES = [*sorted(ROOT.glob('*.md')), *sorted(DOCS.rglob('*.md'))]
LINK = re.compile(r'\]\(([^)\s]+)\)')
WRITTEN = {'docs/benchmarks/gpu.json'}  # by programs that need what not every machine has
# a file of the repository in backticks, no wildcards, no <placeholders>
NAMED = re.compile(r'`((?:config|docs|launch|ood_perception|test|trainer)/[\w./-]*[\w/])`')


def prose(page):
    """Return a page's text without its blocks of code."""
    return re.sub(r'^( *)```.*?^\1```', '', page.read_text(encoding='utf-8'), flags=re.S | re.M)


def anchors(page):
    """Return the anchors of a page's headings, as GitHub and the site make them."""
    found = set()
    for heading in re.findall(r'^#+ (.+)$', prose(page), re.M):
        text = re.sub(r'\[([^]]*)\]\([^)]*\)', r'\1', heading).lower()
        kept = ''.join(c for c in text if c not in string.punctuation or c in '-_')
        found.add(kept.strip().replace(' ', '-'))
    return found


@pytest.mark.parametrize('page', PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    for target in LINK.findall(re.sub(r'`[^`]*`', '', prose(page))):
        if re.match(r'[a-z]+:', target):
            continue
        path, _, anchor = target.partition('#')
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), f'{page.name} links to {target}: there is no {file}'
        if anchor:
            assert anchor in anchors(file), f'{page.name}: no heading #{anchor} in {file.name}'


@pytest.mark.parametrize('page', PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_files_that_are_named_exist(page):
    # the change log tells of files that were; finished records name the programs that made them
    if page.name == 'CHANGELOG.md' or 'results' in page.parts:
        return
    for name in set(NAMED.findall(prose(page))) - WRITTEN:
        assert (ROOT / name).exists(), f'{page.name} names {name}, which does not exist'


def test_pages_of_the_site_link_to_pages_of_the_site():
    """What lies outside of docs is named, not linked: the site does not have it."""
    for page in DOCS.rglob('*.md'):
        for target in LINK.findall(prose(page)):
            if not re.match(r'[a-z]+:', target):
                file = (page.parent / target.partition('#')[0]).resolve()
                assert DOCS in (file, *file.parents), f'{page.name} links to {target}'


def test_blocks_of_code_are_ones_on_the_site():
    """Anything but a language and a title behind a fence, and the site shows the marks."""
    for page in PAGES:
        for line in re.findall(r'^ *```.*$', page.read_text(encoding='utf-8'), re.M):
            assert re.fullmatch(r' *```(\w+( title="[^"]+")?)?', line), f'{page.name}: {line}'


def test_every_page_is_in_the_menu():
    menu = yaml.safe_load((ROOT / 'mkdocs.yml').read_text(encoding='utf-8'))['nav']

    def leaves(entries):
        for entry in entries:
            for value in entry.values():
                yield from leaves(value) if isinstance(value, list) else [value]

    named = list(leaves(menu))
    assert sorted(named) == sorted(str(page.relative_to(DOCS)) for page in DOCS.rglob('*.md'))
