"""The flow of recordings: given, refused with reasons, and used, by split and class.

STARD 2015 (item 19) and TRIPOD+AI (item 20a) ask for it, so that a reader sees who is missing from the figures. The
rows hold numbers alone: no file, speaker or message.
"""

from __future__ import annotations

from collections import Counter

from spira.data.corpus import NOISE_LABEL, Corpus
from spira.data.metadata import CLASS_NAMES, SPLITS
from spira.evaluation.verdict import FlowRow

NOISE = "noise"


def rows(corpus: Corpus) -> tuple[FlowRow, ...]:
    """Return one row for each split and class, then one for the noise recordings."""
    refused: dict[tuple[str, str], Counter[str]] = {}
    for recording in corpus.quality.skipped:
        label = None if recording.split == NOISE else recording.label
        key = (recording.split, "" if label is None else CLASS_NAMES[label])
        refused.setdefault(key, Counter())[recording.reason] += 1
    keys = [(split, name) for split in (*SPLITS, *corpus.external) for name in CLASS_NAMES.values()]
    # A corpus of an earlier version does not record the class of a refused recording: a row without a class.
    keys += [key for key in sorted(refused) if key not in keys and key[0] != NOISE]
    order = {split: number for number, split in enumerate((*SPLITS, *corpus.external))}
    keys.sort(key=lambda key: order.get(key[0], len(order)))
    return tuple(
        _row(corpus, split, name, refused.get((split, name), Counter())) for split, name in [*keys, (NOISE, "")]
    )


def _row(corpus: Corpus, split: str, name: str, refused: Counter[str]) -> FlowRow:
    labels = {name: label for label, name in CLASS_NAMES.items()} | ({"": NOISE_LABEL} if split == NOISE else {})
    used = corpus.index[(corpus.index["split"] == split) & (corpus.index["label"] == labels.get(name))]
    has_speakers = split != NOISE and "speaker" in used
    return FlowRow(
        split=split,
        label=name,
        refused=dict(refused.most_common()),
        used=len(used),
        speakers=int(used["speaker"].nunique()) if has_speakers else None,
    )
