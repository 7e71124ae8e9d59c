"""The report's parts on validation: confounders, external sets, flow of recordings, and the number of evaluations."""

from __future__ import annotations

import dataclasses

import pytest

from spira import config
from spira.data.pseudonyms import Pseudonyms
from spira.data.quality import SkippedRecording
from spira.evaluation import evaluate, gate
from spira.evaluation.report import page as report
from spira.evaluation.report.page import Content
from spira.evaluation.verdict import Verdict
from spira.training import train
from tests.spira.evaluation.report.test_page import HOSTILE, Page
from tests.support.corpus_in_memory import make_corpus

pytestmark = pytest.mark.integration

SHARED = Content(Pseudonyms(lambda: "k" * 16))


@dataclasses.dataclass(frozen=True)
class Shown:
    """A verdict with its pages: for the work folder, and for other places."""

    verdict: Verdict
    local: Page
    shared: Page


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Shown:
    """A network of one epoch on noise, an external set, two refused recordings, and three earlier evaluations."""
    folder = tmp_path_factory.mktemp("validation")
    corpus = make_corpus(speakers=8, splits=("train", "eval", "test", "test_north"))
    skipped = tuple(
        SkippedRecording(file_path=HOSTILE, split="train", label=1, where=HOSTILE, rule=rule, message=HOSTILE)
        for rule in ("is silent: its loudest", HOSTILE)
    )
    index = corpus.index.assign(sex=HOSTILE, age=40 + 30 * corpus.index["label"])
    quality = corpus.quality.model_copy(update={"skipped": skipped})
    corpus = dataclasses.replace(corpus, index=index, quality=quality)
    train.train(corpus, config.smoke(), 1, folder / "1", device="cpu")
    verdict = evaluate.evaluate(corpus, [folder / "1"], gate.load(), folder / "verdict", None, 3)
    pages = []
    for name, content in (("local", Content()), ("shared", SHARED)):
        report.write(folder / "verdict", folder / "1", corpus, folder / f"{name}.html", {}, content)
        pages.append(Page((folder / f"{name}.html").read_text("utf-8")))
    return Shown(verdict, *pages)


def test_the_finding_is_the_first_sentence_of_the_page(shown: Shown) -> None:
    """Before the decision, on both pages, with a link to its numbers."""
    assert shown.verdict.finding.startswith("the network is not shown to be better than age, length, level and noise")
    for page in (shown.local, shown.shared):
        text = page.text("verdict")
        assert text.startswith(f"⚠ Finding : {shown.verdict.finding}")
        assert "#confounders" in page.attributes("href")


def test_the_check_is_shown_as_not_shown(shown: Shown) -> None:
    """It is neither passed nor failed, and not counted as passed."""
    text = shown.local.text("checks")
    assert "! not shown" in text
    assert "1 could not be made or not be shown" in text
    failed = sum(not check.passed for check in shown.verdict.checks)
    assert f"{len(shown.verdict.checks) - failed - 1} of {len(shown.verdict.checks)} passed" in text


def test_the_number_of_evaluations_is_at_the_top(shown: Shown) -> None:
    """And among the limits of the model card."""
    assert "Evaluations of this test set so far, this one included: 4 ." in shown.local.text("verdict")
    assert "This test set was evaluated 4 times so far." in shown.local.text("card")


def test_confounders_are_shown_with_what_was_left_out(shown: Shown) -> None:
    """Age gives the classes away; sex has one value, and there is no site."""
    text = shown.local.text("confounders")
    assert "on age, length, level and noise level, as recorded, fitted on the 16 training recordings" in text
    assert "age 1.000" in text
    assert "sex left out: one value in training" in text
    assert "site left out: no such column" in text


def test_external_sets_have_a_part_of_their_own(shown: Shown) -> None:
    """Recordings, speakers and the metrics of both tests."""
    text = shown.local.text("external")
    assert "north 8 controls , 8 patients 4, 4 Noisy test" in text
    assert "Clean test" in text
    accuracy = shown.verdict.external[0].conditions["clean"].by_file["accuracy"].value
    assert f"{accuracy:.3f}" in text
    assert "test_north" in shown.local.text("data")


def test_the_flow_counts_what_was_refused_without_names(shown: Shown) -> None:
    """By split and class, with reasons; the sums are at the end."""
    text = shown.local.text("flow")
    assert "train patient 10 2 1 silent, 1 cannot be read 8 4" in text
    assert "All 67 2 65" in text
    assert HOSTILE not in text


def test_a_verdict_of_an_earlier_version_says_that_nothing_was_measured(shown: Shown) -> None:
    """Its JSON has none of the keys, and is the same when it is written again."""
    old = {
        key: value
        for key, value in shown.verdict.to_json().items()
        if key not in ("confounders", "external", "flow", "test_evaluations")
    }
    old["data"].pop("digest")
    verdict = Verdict.model_validate(old)
    assert verdict.to_json() == old
    assert (verdict.confounders, verdict.external, verdict.flow, verdict.test_evaluations) == (None, (), (), None)
