"""The article's study as two files test it."""

from __future__ import annotations

import pytest
from article_records import AS_CLAIMED, write_article

from batchmix.study.article.evidence import read_evidence


@pytest.fixture
def folder(tmp_path):
    """The folder of a study whose effects are those that the article would have."""
    write_article(tmp_path, AS_CLAIMED)
    return tmp_path


@pytest.fixture(scope="session")
def evidence(tmp_path_factory):
    """The same, read once for all tests that change nothing."""
    folder = tmp_path_factory.mktemp("study")
    write_article(folder, AS_CLAIMED)
    return read_evidence(folder)
