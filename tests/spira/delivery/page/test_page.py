"""The status page: what it says of a ledger, and that nothing of a ledger is markup."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from spira.data.pseudonyms import from_environment
from spira.delivery.decide import Policy
from spira.delivery.history.events import Claimed, Finished, Observed, Pinned
from spira.delivery.links import Links
from spira.delivery.page import last_status
from spira.delivery.page.build import ChangeRow, PageBuilder, StatusPage
from spira.delivery.page.render import render
from spira.delivery.page.timeline import timeline
from spira.delivery.status import ObservedStatus, TargetStatus, delivery_status
from spira.language import Language
from tests.spira.delivery.page.conftest import LINKS, NEW_FILES, REASONS, build, status_of, with_problems
from tests.support import catalogue
from tests.support.in_memory_world import InMemoryWorld
from tests.support.ledger_builder import REQUEST, START, LedgerBuilder, observed

VERSION = "1"
MARKUP = '<img src=x onerror="alert(1)">\'"&{{ 7*7 }}</title><script>alert(1)</script>'


class Elements(HTMLParser):
    """Names of the elements of a page, its attributes, and its text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.names: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.words: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def text_of(page: StatusPage) -> str:
    return Elements(render(page)).text


def test_the_page_says_what_serves_since_when_and_why(full_ledger: LedgerBuilder) -> None:
    text = text_of(build(full_ledger))
    assert "✔ Version 1 serves as wanted" in text
    assert "Version 1 is pinned: compared with paper records" in text
    assert "local 1 2026-11-24 06:23 UTC ✔ serves as wanted" in text
    assert "Problems now None is known." in text
    assert "version 3 2026-11-24 06:15 UTC 2026-11-24 06:20 UTC" in text


def test_each_change_has_its_verdict_figures_reasons_and_release(full_ledger: LedgerBuilder) -> None:
    """Newest first; the events of operators stand between the changes."""
    page = build(full_ledger)
    outcomes = [row.change.outcome if isinstance(row, ChangeRow) else row.kind for row in page.rows]
    assert outcomes == [
        "running", "pinned", "rolled_back", "rejected", "repaired", "approved", "invalid", "approved", "approved",
    ]  # fmt: skip
    third, rejected = page.rows[5], page.rows[3]
    assert isinstance(third, ChangeRow)
    assert isinstance(rejected, ChangeRow)
    assert [attempt.outcome for attempt in third.change.attempts] == ["failed", "approved"]
    assert third.change.approved_by == "maria"
    assert third.why is not None
    assert (third.why.since, [axis.axis for axis in third.why.axes]) == ("2", ["model"])
    assert rejected.change.last is not None
    assert rejected.change.last.reasons == REASONS
    assert rejected.report == f"{LINKS.mlflow}/#/experiments/1/runs/{rejected.change.last.run}/artifactPath/report.html"
    (period,) = third.change.periods
    assert (period.since.minute, period.until and period.until.minute) == (15, 20)
    text = text_of(page)
    assert "data 5 files added" in text
    assert "training.learning_rate: 0.002 -> 0.001" in text
    assert "accuracy 0.917 AUROC 0.958" in text
    assert "attempt 2" in text


def test_the_details_of_a_change_have_pseudonyms(full_ledger: LedgerBuilder) -> None:
    html = render(build(full_ledger))
    assert from_environment().recording("c.wav") in html
    assert [name for name in NEW_FILES if name in html] == []


def test_problems_stand_first(full_ledger: LedgerBuilder) -> None:
    """A target that serves another version, one that is away, input that cannot be trained on, and lost notices."""
    other = TargetStatus(version="2", ready=True, message="", digest="package 2")
    problem = "data: metadata_train.csv, row 3: no class"
    damaged = ObservedStatus(fingerprint="", axes=None, problem=problem, since=START)
    status = status_of(
        full_ledger,
        serving={"local": other, "kserve": None},
        observed=damaged,
        troubles=("model repository: MLflow cannot be reached",),
        notice_problems=("notices: address 1 (slack) accepts none",),
    )
    text = text_of(build(full_ledger, status))
    assert "! There is a problem; version 1 should serve" in text
    for words in ("MLflow cannot be reached", "address 1 (slack)", "row 3: no class", "! another version than the"):
        assert words in text
    assert re.search("kserve . . ! cannot be reached", text)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"ready": False, "message": "the pod waits"}, "! not ready the pod waits"),
        ({"drifted": True}, "! changed by hand"),
        ({"digest": "another"}, "! another package than the wanted one of this number"),
        ({"version": None}, "! serves nothing"),
    ],
)
def test_each_state_of_a_target_has_words(full_ledger: LedgerBuilder, changed: dict[str, object], words: str) -> None:
    local = status_of(full_ledger).serving["local"]
    assert local is not None
    page = build(full_ledger, status_of(full_ledger, serving={"local": local.model_copy(update=changed)}))
    assert page.health == "problem"
    assert words in text_of(page)


def test_an_old_status_is_a_problem(full_ledger: LedgerBuilder) -> None:
    """A page that says for days that all is well would hide that no tick runs."""
    page = replace(build(full_ledger), is_old=True)
    assert page.health == "problem"
    assert "No tick has stored its status since then" in text_of(page)
    assert "None is known." not in text_of(page)


def test_the_page_of_a_new_delivery_is_not_empty() -> None:
    world = InMemoryWorld()
    status = delivery_status(world.reconciler().dry_run())
    page = PageBuilder().build(status, START, [], world.ledger, Policy(), Links())
    text = text_of(page)
    assert "○ No version serves yet" in text
    assert "Nothing was observed yet." in text


def test_a_page_of_a_real_tick_has_its_state() -> None:
    """Approved, delivered, then changed back: what was trained before is not trained again."""
    world = InMemoryWorld()
    world.deliver()
    world.data = "1"
    world.deliver("rejected")
    world.data = "0"
    report = world.reconciler().tick()
    page = PageBuilder().build(delivery_status(report), START, report.snapshot.records, world.ledger, Policy(), Links())
    assert page.health == "good"
    assert [row.change.outcome for row in page.rows if isinstance(row, ChangeRow)] == [
        "trained_before",
        "rejected",
        "approved",
    ]


def test_a_part_of_the_ledger_that_is_damaged_leaves_the_rest_of_the_page(full_ledger: LedgerBuilder) -> None:
    store = full_ledger.ledger.store
    for entry in store.list():
        if entry.path.startswith("axes/model"):
            store.write(entry.path, b"{")
    text = text_of(build(full_ledger))
    assert "The ledger cannot be read far enough." in text
    assert "Version 1 serves as wanted" in text


def test_differences_are_read_once(full_ledger: LedgerBuilder) -> None:
    """The page is made after each tick, and an observation never changes."""
    builder, ledger = PageBuilder(), full_ledger.ledger
    records = ledger.read()
    arguments = (status_of(full_ledger), START, records, ledger, Policy(), LINKS)
    first = builder.build(*arguments)
    for entry in ledger.store.list():
        if entry.path.startswith("axes/"):
            ledger.store.write(entry.path, b"{")
    assert builder.build(*arguments) == first


def test_a_long_history_is_cut(ledger_builder: LedgerBuilder) -> None:
    for number in range(70):
        axes = observed(model={"training.learning_rate": str(number)}).fingerprint
        ledger_builder.add(Observed(axes=axes, fingerprint=axes.digest))
    page = build(ledger_builder)
    assert len(page.rows) == 60
    assert "10 older entries are left out" in text_of(page)


def with_text(ledger_builder: LedgerBuilder, text: str) -> StatusPage:
    """Return a page with a text in every place where a ledger or a status has free text."""
    axes = observed(model={text: text})
    ledger_builder.deliver(observed(), VERSION)
    digest = ledger_builder.observe(axes)
    ledger_builder.add(Claimed(fingerprint=digest, attempt=1, run=text, request=REQUEST))
    ledger_builder.add(
        Finished(run=text, outcome="rejected", reasons=(text,), message=text, page=text, metrics={text: 0.5})
    )
    ledger_builder.add(Observed(problem=f"data: {text}"))
    ledger_builder.add(Pinned(version=VERSION, reason=text, who=text))
    status = status_of(ledger_builder)
    target = TargetStatus(version=text, ready=False, message=text, digest=text)
    changed = {"serving": {text: target}, "troubles": (text,), "notes": (text,), "notice_problems": (text,)}
    return build(ledger_builder, status.model_copy(update={**changed, "champion": text, "wanted": text}))


def test_markup_in_a_ledger_stays_text(ledger_builder: LedgerBuilder) -> None:
    """In every place with free text: names, reasons, problems, settings, links."""
    html = render(with_text(ledger_builder, MARKUP))
    elements = Elements(html)
    assert not {"script", "img", "iframe", "form"} & set(elements.names)
    assert not [name for name, _ in elements.attributes if name.startswith("on")]
    assert elements.text.count("alert(1)") >= 10
    assert "49" not in elements.text


@pytest.mark.integration
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(min_size=1, max_size=12).filter(lambda text: text != VERSION))
def test_no_text_changes_the_elements_of_the_page(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    """Whatever a data set or an operator writes, except the name of the version: a link leads from it to its story."""
    pages = [
        render(with_text(LedgerBuilder(tmp_path_factory.mktemp("ledger")), content))
        for content in ("x", text.encode(errors="replace").decode())
    ]
    plain, other = (Elements(page).names for page in pages)
    assert plain == other


OWN_WORDS = {
    "SPIRA",
    "compared with paper records",
    "the ward hears false alarms",
    "train seed 42: the disk is full",
}
"""What operators and libraries wrote in English: it stays as it is."""


def test_a_page_in_portuguese_has_no_english_text(full_ledger: LedgerBuilder) -> None:
    """Apart from names of settings, commands, and the words of operators and libraries."""
    page = replace(build(full_ledger, with_problems(full_ledger)), is_old=True, left_out=2)
    html = render(page, language=Language.PORTUGUESE)
    english, portuguese = Elements(render(page)), Elements(html)
    assert '<html lang="pt-BR">' in html
    assert english.names == portuguese.names
    assert len(catalogue.english_left(english.text)) > 30
    assert catalogue.english_left(portuguese.text) == []
    same = {text.strip() for text in portuguese.words if text in english.words and len(text.split()) > 1}
    shown = {text for text in same if re.search("[a-z]{3,} [a-z]{2,}", text)}
    assert {text for text in shown if not any(own in text for own in OWN_WORDS) and "font" not in text} == set()
    for words in (
        "Há um problema; a versão 1 deveria estar em serviço",
        "2 registros mais antigos ficaram de fora: spira deliver history mostra todos.",
        "dados: metadata_train.csv: nenhuma linha abaixo do cabeçalho",
        "último ciclo, desde 24/11/2026 06:30: execuções: no answer",
        "avisos: endereço 1 (slack) não aceita nenhum desde 24/11/2026 06:30",
        "dados 5 arquivos novos",
        "acurácia 0,917 AUROC 0,958",
        "de 24/11/2026 06:15 UTC até 24/11/2026 06:20 UTC",
        "teste com ruído: acurácia é baixa demais: 0,531 [0,500, 0,562], o mínimo é 0,80",
        "Reversão da versão 3 para a versão 2 : the ward hears false alarms",
        "training.learning_rate: 0.002 -> 0.001",
    ):
        assert words in portuguese.text
    assert re.search(r"\d{4}-\d\d-\d\d", portuguese.text) is None


@pytest.mark.parametrize(
    ("page_of", "words"),
    [
        (lambda ledger: build(ledger), "✔ A versão 1 está em serviço, como desejado"),
        (lambda ledger: replace(build(ledger), left_out=1), "1 registro mais antigo ficou de fora"),
    ],
)
def test_a_good_page_in_portuguese_says_so(
    full_ledger: LedgerBuilder, page_of: Callable[[LedgerBuilder], StatusPage], words: str
) -> None:
    text = Elements(render(page_of(full_ledger), language=Language.PORTUGUESE)).text
    assert words in text
    assert "execução spira-27d492b81538-1 em andamento desde 24/11/2026 06:30:00" in text
    assert catalogue.english_left(text) == []


def test_markup_stays_text_in_portuguese(ledger_builder: LedgerBuilder) -> None:
    """A translation with fields escapes them as the English text does."""
    page = with_text(ledger_builder, MARKUP)
    english, portuguese = (Elements(render(page, language=language)) for language in Language)
    assert english.names == portuguese.names
    assert portuguese.text.count("alert(1)") == english.text.count("alert(1)")


def test_the_page_loads_nothing(full_ledger: LedgerBuilder) -> None:
    """It has no scripts, and only links for a person to follow; a served one reloads itself."""
    html = render(build(full_ledger), refresh_seconds=60)
    elements = Elements(html)
    assert not {"script", "img", "link rel=stylesheet", "iframe", "object"} & set(elements.names)
    addresses = [value for name, value in elements.attributes if name in ("src", "href", "srcset", "action")]
    assert {address for address in addresses if not address.startswith(LINKS.mlflow)} == {"data:,"}
    assert "url(" not in html
    assert '<meta http-equiv="refresh" content="60">' in html
    assert not re.search("http-equiv=.refresh", render(build(full_ledger)))


def test_the_status_of_the_last_tick_survives_storing() -> None:
    world = InMemoryWorld()
    world.deliver()
    status = delivery_status(world.reconciler().tick())
    assert last_status.load(world.store) is None
    last_status.save(world.store, status, world.now)
    assert last_status.load(world.store) == last_status.LastStatus(at=world.now, status=status)
    world.store.files[last_status.PATH] = world.store.files[last_status.PATH].replace(b"approved", b"rejected")
    assert last_status.load(world.store) is None


def test_no_version_and_no_change_make_an_empty_timeline() -> None:
    assert timeline([], Policy()).changes == ()
