"""The report: a complete verdict as one page, and what must not be on it."""

from __future__ import annotations

import base64
import dataclasses
import io
import json
import re
import shutil
from datetime import datetime, timedelta, timezone
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from spira import config, digests
from spira.config import SAMPLE_RATE_HZ
from spira.data.corpus import Corpus
from spira.data.pseudonyms import Pseudonyms
from spira.errors import SpiraError
from spira.evaluation import evaluate, gate, intervals
from spira.evaluation import verdict as verdicts
from spira.evaluation.numbers import number
from spira.evaluation.report import page as report
from spira.evaluation.report.head import NOTHING_KNOWN, Origin
from spira.evaluation.report.page import Content
from spira.evaluation.verdict import Check, CheckGroup, CheckKind, Condition, Estimate, Verdict
from spira.language import Language
from spira.models import checkpoint
from spira.project import PAPER, Project
from spira.training import train
from tests.support.verdicts import make_verdict

pytestmark = pytest.mark.integration

SEEDS = (1, 2)
HOSTILE = "\"><script>alert('x')</script><img src=x onerror=alert(1)>&amp;{{ 7 * 7 }}"
WITH_VOICES = Content(has_voices=True)
LINEAGE = {"data_fingerprint": "d" * 64, "git_commit": "abc123-dirty", "pipeline_run": "spira-20"}
ORDER = ["checks", "card", "metrics", "training", "curves", "confusion", "slices", "mistakes"]
ORDER += ["confounders", "external", "flow", "data", "champion", "configuration", "lineage"]


@dataclasses.dataclass(frozen=True)
class Case:
    """Inputs of a report."""

    verdict_dir: Path
    checkpoint: Path
    corpus: Corpus

    def changed(self, folder: Path, **changes: Any) -> Case:
        """Return the case with parts of ``verdict.json`` changed."""
        shutil.copytree(self.verdict_dir, folder)
        verdict = json.loads((folder / "verdict.json").read_text())
        (folder / "verdict.json").write_text(json.dumps(verdict | changes))
        return dataclasses.replace(self, verdict_dir=folder)

    def verdict(self) -> Verdict:
        return verdicts.read(self.verdict_dir / "verdict.json")

    def page(
        self,
        out: Path,
        lineage: dict[str, str] = LINEAGE,
        content: Content = WITH_VOICES,
        origin: Origin = NOTHING_KNOWN,
    ) -> Page:
        report.write(self.verdict_dir, self.checkpoint, self.corpus, out, lineage, content, origin)
        return Page(out.read_text("utf-8"))


class Page(HTMLParser):
    """A parsed page: its tags with attributes, and its text by section."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.html, self.tags, self.section = html, [], ""
        self.texts: dict[str, str] = {}
        self.lines: dict[str, list[str]] = {}
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "section":
            self.section = dict(attrs)["id"] or ""

    def handle_data(self, data: str) -> None:
        if self.get_starttag_text() != "<style>":
            self.texts[self.section] = f"{self.texts.get(self.section, '')} {data}"
            self.lines.setdefault(self.section, []).append(" ".join(data.split()))

    def attributes(self, *names: str) -> list[str]:
        return [value or "" for _, attrs in self.tags for name, value in attrs.items() if name in names]

    def text(self, section: str) -> str:
        return " ".join(self.texts[section].split())


@pytest.fixture(scope="module")
def case(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Case:
    """Two networks of one epoch, evaluated on 8 recordings beside a champion of constant output."""
    folder = tmp_path_factory.mktemp("case")
    slim = config.smoke().model_dump(mode="json")
    for seed in SEEDS:
        train.train(corpus, config.from_dict(slim), seed, folder / str(seed), device="cpu")
    champion = evaluate.ChampionPredictor("version 7", lambda waveforms: np.full(len(waveforms), 0.5))
    paths = [folder / str(seed) for seed in SEEDS]
    verdict = evaluate.evaluate(corpus, paths, gate.load(), folder / "verdict", champion)
    histories = {seed: json.loads((folder / str(seed) / "history.json").read_text()) for seed in SEEDS}
    (folder / "verdict" / "histories.json").write_text(json.dumps(histories))
    return Case(folder / "verdict", folder / str(verdict.candidate.seed), corpus)


@pytest.fixture(scope="module")
def page(case: Case, tmp_path_factory: pytest.TempPathFactory) -> Page:
    """The report of ``case``."""
    return case.page(tmp_path_factory.mktemp("page") / "new" / "report.html")


def mistaken(case: Case, count: int) -> list[dict[str, Any]]:
    """Return entries of a verdict's mistakes for the first test recordings, whether they are mistakes or not."""
    table = case.corpus.split("test").table[:count]
    return [
        {
            "file_path": row.file_path,
            "label": row.label,
            "probability": 0.9 - 0.8 * row.label,
            "split": "test",
        }
        for row in table.itertuples()
    ]


def test_the_verdict_comes_first_then_the_parts_in_order(page: Page) -> None:
    """The verdict is at the top of the page."""
    assert [attrs["id"] for tag, attrs in page.tags if tag == "section"] == ["verdict", *ORDER]
    assert "Refused: too little data" in page.text("verdict")


def test_every_check_is_shown_with_its_result(case: Case, page: Page) -> None:
    """Passed and failed are words, not only colours, and every reason is given."""
    passed = [check.passed for check in case.verdict().checks]
    assert (page.text("checks").count("✔ pass"), page.text("checks").count("✖ FAIL")) == (
        sum(passed),
        len(passed) - sum(passed),
    )
    reasons = case.verdict().reasons
    assert [reason for reason in reasons if reason[1:] not in page.text("verdict")] == []
    assert reasons


def test_checks_are_grouped(case: Case, page: Page) -> None:
    """Each check stands in its group, the groups in their order; amounts of data have value and limit."""
    text = page.text("checks")
    headings = ["Data and integrity", "Performance", "Noise and other shortcuts", "Slices", "Champion"]
    starts = [text.index(f" {heading} ") for heading in headings]
    assert starts == sorted(starts)
    parts = dict(zip(CheckGroup, (text[a:b] for a, b in zip(starts, [*starts[1:], None], strict=True)), strict=True))
    for check in case.verdict().checks:
        assert check.title in parts[check.group], check.name
    minimum = gate.load().minimum.files_per_class
    assert (
        f"Enough data: control files too little data to judge by: 4 test files of controls, at least {minimum}" in text
    )
    assert f"are required 4 ≥ {minimum}" in parts[CheckGroup.DATA]
    assert "paired score (Tango)" in parts[CheckGroup.CHAMPION]


def test_a_group_without_checks_gives_the_reason(case: Case, tmp_path: Path) -> None:
    """There was no champion, and no slice is large enough."""
    checks = [check for check in case.verdict().to_json()["checks"] if check["name"] != "champion"]
    page = case.changed(tmp_path / "v", champion=None, checks=checks).page(tmp_path / "report.html")
    why = "Not compared: there was no champion when this candidate was evaluated."
    assert why in page.text("checks")
    assert why in page.text("champion")
    assert "The data set has no group of people with at least 12 test recordings." in page.text("checks")


def test_the_head_shows_which_model_of_whom(case: Case, tmp_path: Path) -> None:
    """Version, run, days, data set, code, owner, licence and citation."""
    project = Project(
        owner="Voice group", contact="voice@example.org", licence="CC BY-NC 4.0", citation="Doe (2026)",
        ethics_approval="CAAE 1",
    )  # fmt: skip
    origin = Origin(project, "7", datetime(2026, 11, 30, 23, 30, tzinfo=timezone(timedelta(hours=-3))))
    text = case.page(tmp_path / "report.html", LINEAGE | {"code_fingerprint": "c" * 64}, origin=origin).text("")
    trained = checkpoint.read_info(case.checkpoint).ended_at
    assert trained
    for words in (
        "Model version 7 of run spira-20",
        f"Evaluated 2026-12-01 training ended {trained:%Y-%m-%d}",
        f"Data set {Path(case.corpus.manifest.uri).name} SHA-256 {case.corpus.digest[:12]}",
        "Code commit abc123-dirty code fingerprint cccccccccccc",
        "Owner Voice group voice@example.org",
        "Licence of the model CC BY-NC 4.0",
        "Ethics approval CAAE 1",
        "How to cite Doe (2026)",
    ):
        assert words in text, words
    assert "not recorded" not in text


def test_the_head_invents_nothing(case: Case, tmp_path: Path) -> None:
    """What is not known is not recorded; the method's paper is named as such. There is no name of a person or file."""
    text = case.page(tmp_path / "report.html", {"git_commit": "unknown"}).text("")
    for words in (
        "Model version not recorded",
        "Evaluated not recorded",
        "Code not recorded",
        "Owner not recorded",
        "Licence of the model not recorded",
        "Ethics approval not recorded",
        f"How to cite {PAPER} The paper of the method: the project file names no citation.",
    ):
        assert words in text, words
    names = {*case.corpus.index["file_path"], *case.corpus.index["speaker"].dropna()}
    assert {name for name in names if name in text} == set()


def test_calibration_has_intervals(case: Case, page: Page) -> None:
    """Each bin shows the share of patients with its interval over speakers; few speakers are said to be few."""
    calibration = case.verdict().conditions["noisy"].calibration
    assert calibration.bins
    for of_bin in calibration.bins:
        few = " (few)" if of_bin.has_few_speakers else ""
        row = f"{number(of_bin.predicted)} {shown(of_bin.observed)} {of_bin.count} {of_bin.speakers}{few}"
        assert row in page.text("curves")
    assert f"Intervals: 95 %, {intervals.EXACT.name}, over speakers" in page.text("curves")
    assert "calibration.csv" in page.text("curves")


def test_figures_are_those_of_the_verdict(case: Case, page: Page) -> None:
    """The page shows value and interval of the noisy test, mean over seeds, and the champion."""
    verdict = case.verdict()
    accuracy = verdict.conditions["noisy"].by_file["accuracy"]
    shown = f"{number(accuracy.value)} {number(accuracy.low)} to {number(accuracy.high)}"
    assert shown in page.text("metrics")
    assert shown in page.text("champion")
    spread = verdict.spread["noisy"]["accuracy"]
    assert f"{spread.mean:.3f} ± {spread.std:.3f}" in page.text("metrics")
    assert "version 7" in page.text("champion")
    right, unsure, wrong = verdict.conditions["clean"].answers.controls
    assert f"Clean test called control inconclusive called patient controls {right} " in page.text("confusion")
    assert right + unsure + wrong == 4


def test_the_methods_of_the_intervals_are_named_with_their_sources(case: Case, page: Page) -> None:
    """Above the metrics, beside the checks and beside the difference to the champion."""
    for method in (
        intervals.EXACT,
        intervals.AREA_SCORE,
        intervals.BOUNDED,
        intervals.BOOTSTRAP,
        intervals.PAIRED_SCORE,
    ):
        assert f"{method.name} ({method.source})" in page.text("metrics")
    assert intervals.EXACT.name in page.text("checks")
    assert intervals.PAIRED_SCORE.name in page.text("champion")
    assert "percentiles of a bootstrap" not in page.text("metrics")


def test_operating_points_and_predictive_values_are_tables(case: Case, page: Page) -> None:
    """Every threshold and every prevalence of the gate has a row; the threshold in use is marked."""
    noisy = case.verdict().conditions["noisy"]
    for point in noisy.operating_points:
        in_use = " (in use)" if point.threshold == 0.5 else ""
        assert f"{number(point.threshold)}{in_use} {shown(point.sensitivity)}" in page.text("curves")
    for values in noisy.predictive_values:
        assert f"{100 * values.prevalence:g} % {shown(values.positive)}" in page.text("curves")
    assert [values.prevalence for values in noisy.predictive_values] == list(gate.load().prevalences)


def shown(estimate: Estimate) -> str:
    """Return the text of an estimate in a table."""
    if estimate.value is None:
        return "\N{EN DASH}" if estimate.low is None else f"at least {number(estimate.low)}"
    return f"{number(estimate.value)} {number(estimate.low)} to {number(estimate.high)}"


def test_all_seeds_are_drawn(page: Page) -> None:
    """The training curves show both seeds, not only the candidate."""
    assert [f"seed {seed}" in page.text("training") for seed in SEEDS] == [True, True]


@pytest.mark.parametrize(
    ("approved", "failing", "word"),
    [
        (True, None, "approved"),
        (False, "noisy.accuracy", "rejected"),
        (False, "data.patient_files", "refused"),
    ],
)
def test_the_status_is_one_of_three(approved: bool, failing: str | None, word: str) -> None:
    """A candidate is approved, refused if there is too little data, and rejected for any other failure."""
    results = {"coverage": True} | ({failing: False} if failing else {})
    checks = tuple(Check.model_validate({"name": name, "passed": passed}) for name, passed in results.items())
    assert report.status(make_verdict(approved).model_copy(update={"checks": checks})) == word


def test_a_leak_is_a_rejection_without_figures(case: Case, tmp_path: Path) -> None:
    """If test speakers were used in training, nothing is measured, and the page shows the reason."""
    leaky = shutil.copytree(case.checkpoint, tmp_path / "leaky")
    info = json.loads((leaky / checkpoint.INFO).read_text())
    info["train_speakers"] = ["test0"]
    (leaky / checkpoint.INFO).write_text(json.dumps(info))
    digests.record(leaky, checkpoint.FILES)
    evaluate.evaluate(case.corpus, [leaky], gate.load(), tmp_path / "verdict")
    page = Case(tmp_path / "verdict", leaky, case.corpus).page(tmp_path / "report.html")
    assert "Rejected" in page.text("verdict")
    assert "1 test speakers were used in training: leakage" in page.text("verdict")
    assert "Not measured" in page.text("metrics")


def test_the_page_needs_no_other_file(page: Page) -> None:
    """The page has no script and no external link, style or picture."""
    links = page.attributes("src", "href", "xlink:href", "srcset", "data", "action")
    assert links
    assert [link[:60] for link in links if not link.startswith(("data:", "#"))] == []
    assert re.findall(r"url\((?!#)|@import", page.html) == []
    assert {tag for tag, _ in page.tags} & {"script", "link", "iframe", "object", "form"} == set()


def test_references_within_the_page_are_valid(case: Case, tmp_path: Path) -> None:
    """Each identifier occurs once, and each reference leads to an identifier."""
    page = case.changed(tmp_path / "v", mistakes=mistaken(case, 3)).page(tmp_path / "report.html")
    ids = page.attributes("id")
    assert len(ids) == len(set(ids))
    targets = [link[1:] for link in page.attributes("href", "xlink:href") if link.startswith("#")]
    assert set(targets + re.findall(r"url\(#([^)]+)\)", page.html)) <= set(ids)


def test_texts_from_users_are_escaped(case: Case, tmp_path: Path) -> None:
    """HTML and templates in a file name, speaker, slice, reason, lineage tag or README are shown as text."""
    mistake = mistaken(case, 1)[0]
    index = case.corpus.index.replace({mistake["file_path"]: HOSTILE, "test0": HOSTILE})
    corpus = dataclasses.replace(
        case.corpus,
        index=index,
        quality=case.corpus.quality.model_copy(update={"warnings": (HOSTILE,), "about": f"Synthetic {HOSTILE}"}),
    )
    part = {"value": 0.5, "low": None, "high": None}
    metrics = dict.fromkeys(("accuracy", "sensitivity", "specificity"), part)
    attacked = case.changed(
        tmp_path / "v",
        mistakes=[mistake | {"file_path": HOSTILE}],
        reasons=[HOSTILE],
        slices=[{"column": HOSTILE, "value": HOSTILE, "files": 20, "metrics": metrics}],
    )
    origin = Origin(Project(owner=HOSTILE, licence=HOSTILE, citation=HOSTILE))
    hostile = dataclasses.replace(attacked, corpus=corpus)
    page = hostile.page(tmp_path / "report.html", {HOSTILE: HOSTILE}, origin=origin)
    assert {tag for tag, _ in page.tags} & {"script", "img"} == set()
    assert [name for _, attrs in page.tags for name in attrs if name.startswith("on")] == []
    shown = [section for section in page.texts if HOSTILE in page.text(section)]
    assert shown == ["", "verdict", "card", "slices", "mistakes", "data", "lineage"]


def test_the_worst_mistakes_can_be_played(case: Case, tmp_path: Path) -> None:
    """The first six have the audio of the recording; the seventh is only listed."""
    page = case.changed(tmp_path / "v", mistakes=mistaken(case, 7)).page(tmp_path / "report.html")
    players = [attrs["src"] for tag, attrs in page.tags if tag == "audio"]
    test = case.corpus.split("test")
    assert len(players) == report.MAX_DETAILED
    for row, player in enumerate(players):
        np.testing.assert_allclose(decode_audio(player), test.waveform(row), atol=1 / 32768)
    assert test.table["file_path"][6] in page.text("mistakes")


@settings(max_examples=20)
@given(st.lists(st.floats(-1, 1, width=32), min_size=1, max_size=400))
def test_audio_keeps_the_samples(samples: list[float]) -> None:
    """Any waveform is kept to 16 bits, full scale included."""
    waveform = np.array(samples, np.float32)
    np.testing.assert_allclose(decode_audio(report.audio(waveform)), waveform, atol=1 / 32768)


@pytest.mark.parametrize("content", [Content(), Content(Pseudonyms(lambda: "a key of the tests"))])
def test_a_page_without_voices_has_neither_audio_nor_spectrogram(case: Case, tmp_path: Path, content: Content) -> None:
    """A spectrogram counts as a voice. A page for other places also has pseudonyms instead of names."""
    changed = case.changed(tmp_path / "v", mistakes=mistaken(case, 7))
    page = changed.page(tmp_path / "report.html", content=content)
    assert "data:audio" not in page.html
    assert "Mel spectrogram" not in page.html
    table = case.corpus.split("test").table[:7]
    names = (
        {*table["file_path"]} if not content.pseudonyms else {*map(content.pseudonyms.recording, table["file_path"])}
    )
    assert {name for name in names if name not in page.text("mistakes")} == set()
    if content.pseudonyms:
        assert {name for name in (*case.corpus.index["file_path"], "speaker") if name in page.text("mistakes")} == set()


WORDS = re.compile(r"[A-Za-z]{2,}")


def test_a_page_in_portuguese_has_no_english_text(case: Case, tmp_path: Path) -> None:
    """Every text differs from the English page's, apart from names, settings and the data set's own description."""
    changed = case.changed(tmp_path / "v", mistakes=mistaken(case, 8))
    english = changed.page(tmp_path / "en.html")
    portuguese = changed.page(tmp_path / "pt.html", content=Content(has_voices=True, language=Language.PORTUGUESE))
    assert '<html lang="pt-BR">' in portuguese.html
    assert "Reprovado" in portuguese.text("verdict") or "Recusado" in portuguese.text("verdict")
    same = {
        text
        for section, texts in english.lines.items()
        for text in texts
        if section not in {"configuration", "lineage"}
        and text in portuguese.lines[section]
        and len(WORDS.findall(text)) > 1
        and not text.endswith(".wav")
        and not re.search(r"[A-Z][a-z]+ (19|20)\d\d\b", text)  # authors and year of a publication
        and text not in " ".join(case.corpus.quality.about.split())
        and text not in {*LINEAGE.values(), PAPER}
    }
    assert same == set()
    assert re.search(r"\d\.\d{3}", portuguese.text("metrics")) is None, "decimal commas"
    assert "Subgrupos" in portuguese.text("slices")
    assert re.search(r"sexo [FM]\b|idade \d+", portuguese.text("mistakes"))


def test_a_page_in_portuguese_lists_the_same_checks(case: Case, tmp_path: Path) -> None:
    """A page differs in its words alone."""
    pages = [case.page(tmp_path / f"{language}.html", content=Content(language=language)) for language in Language]
    assert len({len(page.tags) for page in pages}) == 1


def decode_audio(uri: str) -> np.ndarray:
    """Return the samples of a data URI."""
    kind, _, content = uri.partition(";base64,")
    assert kind == "data:audio/flac"
    samples, rate = soundfile.read(io.BytesIO(base64.b64decode(content)))
    assert rate == SAMPLE_RATE_HZ
    return samples


def test_six_long_noises_fit_in_4_mb(case: Case, page: Page) -> None:
    """White noise of 12 s, which compresses worst, fits together with the rest of a page."""
    clip = np.random.default_rng(0).uniform(-1, 1, round(report.MAX_CLIP_SECONDS * SAMPLE_RATE_HZ))
    without = re.sub(r'src="data:audio[^"]+"', "", page.html)
    assert report.MAX_DETAILED * len(report.audio(clip)) + len(without) < 4_000_000


def test_the_same_inputs_give_the_same_bytes(case: Case, page: Page, tmp_path: Path) -> None:
    """The page holds no time and no random identifier."""
    assert case.page(tmp_path / "report.html").html == page.html


def test_a_failure_leaves_the_old_report(case: Case, tmp_path: Path) -> None:
    """The file changes only when the new report is complete."""
    out = tmp_path / "report.html"
    out.write_text("old")
    with pytest.raises(SpiraError, match="not a complete checkpoint"):
        report.write(case.verdict_dir, tmp_path / "absent", case.corpus, out, LINEAGE, WITH_VOICES)
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("report.html", "old")]


def test_changed_settings_are_marked() -> None:
    """Only settings that differ from their defaults are marked, beside the default."""
    chosen = config.from_dict({"model": {"dropout": 0.7}, "training": {"seeds": [42]}})
    sections = report.settings(chosen).items()
    changed = [(section, setting) for section, settings in sections for setting in settings if setting.is_changed]
    assert [(section, setting.name, setting.value) for section, setting in changed] == [
        ("model", "dropout", 0.7),
        ("training", "seeds", [42]),
    ]
    assert changed[0][1].default == config.Model().dropout


def test_synthetic_data_has_a_notice(case: Case) -> None:
    """The notice quotes the data set's README; without a README there is no notice."""
    assert report.notice(case.corpus) == ""
    readme = "Title\n\nA **stand-in**,\nno patients.\n\nMore."
    corpus = dataclasses.replace(case.corpus, quality=case.corpus.quality.model_copy(update={"about": readme}))
    assert report.notice(corpus) == "A stand-in, no patients."


def without_speakers(conditions: dict[str, Condition]) -> dict[str, Any]:
    """Return conditions as JSON, without metrics by speaker."""
    return {name: measured.model_dump(mode="json") | {"by_speaker": None} for name, measured in conditions.items()}


def test_unknown_speakers_are_a_limit(case: Case, tmp_path: Path) -> None:
    """Without speakers the page warns that intervals are too narrow, and shows no metric by speaker."""
    conditions = without_speakers(case.verdict().conditions)
    data = {"files": 8, "classes": {"control": {"files": 4}, "patient": {"files": 4}}}
    page = case.changed(tmp_path / "v", data=data, conditions=conditions).page(tmp_path / "report.html")
    assert "Speakers are not known" in page.text("card")
    assert "by speaker" not in page.text("metrics")


def test_an_undefined_number_is_a_dash() -> None:
    """None is not shown as a number."""
    assert (report.number(None), report.number(0.12345), report.number(7, 0)) == ("\N{EN DASH}", "0.123", "7")


def test_a_report_of_an_earlier_verdict_has_what_it_measured(case: Case, tmp_path: Path) -> None:
    """Without methods, answers and operating points, the page says so or leaves them out."""
    verdict = case.verdict().to_json()

    def without(part: Any) -> Any:
        if isinstance(part, dict):
            left_out = {"method", "source", "answers", "operating_points", "predictive_values"}
            left_out |= {"low", "high", "speakers"} if "predicted" in part else set()
            return {key: without(value) for key, value in part.items() if key not in left_out}
        return [without(value) for value in part] if isinstance(part, list) else part

    changes = {key: without(verdict[key]) for key in ("conditions", "checks", "champion", "slices")}
    page = case.changed(tmp_path / "v", **changes).page(tmp_path / "report.html")
    assert "percentiles of a bootstrap" in page.text("metrics")
    assert "Operating points" not in page.text("curves")
    assert "it has no intervals" in page.text("curves")
    assert "called control called patient controls" in page.text("confusion")


def test_undefined_metrics_can_be_shown(case: Case, tmp_path: Path) -> None:
    """A metric without a value is shown as a dash."""
    conditions = case.verdict().to_json()["conditions"]
    conditions["noisy"]["by_file"]["auroc"] = Estimate(value=None).model_dump()
    page = case.changed(tmp_path / "v", conditions=conditions).page(tmp_path / "report.html")
    assert "AUROC, noisy test \N{EN DASH}" in page.text("verdict")


def test_an_earlier_verdict_can_be_shown(case: Case, tmp_path: Path) -> None:
    """A condition that is no longer measured has its own name as title, and a check without a title too."""
    verdict = case.verdict().to_json()
    for check in verdict["checks"]:
        del check["title"], check["kind"]
    conditions = verdict["conditions"] | {"scrambled": verdict["conditions"]["background"]}
    changes = {"checks": verdict["checks"], "conditions": conditions}
    page = case.changed(tmp_path / "v", **changes).page(tmp_path / "report.html")
    assert "scrambled" in page.text("metrics")
    assert "noisy.accuracy_low" in page.text("checks")


def test_every_kind_of_limit_has_a_sign() -> None:
    """Only facts have no limit to show."""
    assert report.LIMIT_SIGNS.keys() == set(CheckKind) - {CheckKind.FACT}
