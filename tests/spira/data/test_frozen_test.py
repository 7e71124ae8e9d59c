"""The digest of the frozen test: recordings, classes and noises."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd
import pytest

from spira.data.corpus import Corpus

pytestmark = pytest.mark.integration


def test_the_digest_of_the_test_is_over_its_recordings_classes_and_noises(corpus: Corpus) -> None:
    """Training data and names do not matter; contents, classes, order and noises of the frozen test do."""

    def digest(index: pd.DataFrame) -> str:
        return replace(corpus, index=index).test_digest

    index, is_test = corpus.index, corpus.index["split"] == "test"
    other = index["sha256"].str[::-1]
    same = (
        index[index["split"] != "train"],
        index.assign(sha256=other.where(index["split"].isin(["train", "eval"]), index["sha256"])),
        index.assign(file_path="renamed.wav"),
    )
    assert {digest(changed) for changed in same} == {corpus.test_digest}
    different = (
        index[~is_test],
        index.assign(sha256=other.where(is_test, index["sha256"])),
        index.assign(label=(1 - index["label"]).where(is_test, index["label"])),
        pd.concat([index[~is_test], index[is_test].iloc[::-1]]),
        index.assign(sha256=other.where(index["split"] == "noise", index["sha256"])),
    )
    assert len({corpus.test_digest, *map(digest, different)}) == 1 + len(different)
