# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Weights from the hub: what is said where they cannot be had."""

import pytest

pytest.importorskip('torch')
hub = pytest.importorskip('huggingface_hub')
errors = pytest.importorskip('huggingface_hub.errors')

from ood_perception.errors import ConfigError  # noqa: E402
from trainer.backbones.weights import locate_weights  # noqa: E402

DINOV3 = 'facebook/dinov3-vits16-pretrain-lvd1689m'


@pytest.mark.parametrize(
    ('kind', 'words'),
    [
        (errors.GatedRepoError, f'https://huggingface.co/{DINOV3}, accept it, then run "hf auth'),
        (OSError, 'nor available from the hub'),
    ],
)
def test_the_hub_refuses(monkeypatch, kind, words):
    class Refusal(kind):
        def __init__(self):
            Exception.__init__(self, 'no')

    def refuse(*_):
        raise Refusal

    monkeypatch.setattr(hub, 'hf_hub_download', refuse)
    with pytest.raises(ConfigError) as error:
        locate_weights(DINOV3)
    assert words in str(error.value)
