"""The flow of recordings: every row of the tables is counted once, as used or as refused."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spira.config import Preprocess
from spira.data.corpus import Corpus, build
from spira.data.quality import SkippedRecording
from spira.evaluation import flow
from spira.evaluation.verdict import FlowRow
from tests.support import bad_datasets
from tests.support.corpus_in_memory import make_corpus

pytestmark = pytest.mark.integration


def test_a_corpus_counts_what_it_used_and_refused(tmp_path: Path) -> None:
    """By split and class, external sets and noise too; a reason has no name of a file."""
    root = bad_datasets.add_external(bad_datasets.make(tmp_path / "data"))
    bad_datasets.write(root, "train/10.wav", bad_datasets.AUDIO["silent"][0])
    bad_datasets.write(root, "train/11.wav", bad_datasets.AUDIO["too short"][0])
    (root / "north/00.wav").unlink()
    bad_datasets.write(root, "noise.csv", "file_path\nward.wav\nshort.wav\n")
    bad_datasets.write(root, "short.wav", bad_datasets.wav_bytes(bad_datasets.voice(98, seconds=0.7)))
    bad_datasets.write(root, "train/12.wav", bad_datasets.wav_bytes(bad_datasets.voice(97)))
    table = (root / "metadata_train.csv").read_text()
    bad_datasets.write(root, "metadata_train.csv", f"{table}train/12.wav,1,another,50\n")
    build(root, tmp_path / "corpus", Preprocess(), skip_bad=True)
    rows = {(row.split, row.label): row for row in flow.rows(Corpus.open(tmp_path / "corpus"))}
    assert list(rows) == [
        *((split, label) for split in ("train", "eval", "test", "test_north") for label in ("control", "patient")),
        ("noise", ""),
    ]
    train = rows["train", "patient"]
    assert (train.given, train.used, train.speakers) == (3, 1, 1)
    assert train.refused == {"silent": 1, "too short": 1}
    assert rows["test_north", "control"].refused == {"file is missing": 1}
    noise = rows["noise", ""]
    assert (noise.given, noise.used, noise.refused, noise.speakers) == (2, 1, {"noise is too short": 1}, None)
    assert rows["test", "patient"] == FlowRow(split="test", label="patient", refused={}, used=2, speakers=2)


CORPUS = make_corpus(speakers=4)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["train", "eval", "test", "noise"]),
            st.sampled_from([0, 1, None]),
            st.sampled_from(["is silent", "lasts 0.10 s, less than 0.5 s", "is a secret.wav of Ana"]),
        )
    )
)
def test_nothing_is_lost_and_no_rule_is_shown(refusals: list[tuple[str, int | None, str]]) -> None:
    """Also where an older corpus does not record the class: the sums are those of the corpus."""
    skipped = tuple(
        SkippedRecording(file_path="secret.wav", split=split, label=label, where="", rule=rule, message="")
        for split, label, rule in refusals
    )
    quality = CORPUS.quality.model_copy(update={"skipped": skipped})
    rows = flow.rows(dataclasses.replace(CORPUS, quality=quality))
    assert sum(row.used for row in rows) == len(CORPUS.index)
    assert sum(sum(row.refused.values()) for row in rows) == len(refusals)
    assert "secret" not in str(rows)
    order = [row.split for row in rows]
    assert order == sorted(order, key=["train", "eval", "test", "noise"].index)
