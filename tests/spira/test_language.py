"""The language of pages: a whole catalogue, and stored messages that are translated when they are shown."""

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spira.language import FIELD, Language, translator
from tests.support import catalogue

PORTUGUESE = translator(Language.PORTUGUESE)
ENTRIES = {entry.id: entry for entry in catalogue.catalogue() if entry.id}
PLACEHOLDER = re.compile(r"%\(\w+\)s|%%|\{\w+\}|</?\w+>")


def translations(key: str | tuple[str, ...]) -> tuple[str, ...]:
    """Return the translation of a text, or of its singular and plural."""
    string = ENTRIES[key].string
    return string if isinstance(string, tuple) else (string,)


def test_the_catalogue_has_the_texts_of_the_code_and_no_other() -> None:
    """``make translations`` brings it up to date."""
    assert set(ENTRIES) == {*catalogue.source_messages(), *catalogue.stored_messages()}
    assert [entry.id for entry in ENTRIES.values() if entry.fuzzy] == []


def test_every_text_is_translated() -> None:
    """A new text without a translation is missed."""
    strings = {
        key: entry.string if isinstance(entry.string, tuple) else (entry.string,) for key, entry in ENTRIES.items()
    }
    assert [key for key, translations in strings.items() if not all(translations)] == []


def test_the_code_still_writes_every_stored_message() -> None:
    """A message that has changed in the code is missed in the catalogue."""
    assert catalogue.foreign_stored_messages() == []


@pytest.mark.parametrize(
    "module",
    [
        "spira/delivery/decide.py",
        "spira/delivery/history/last_problems.py",
        "spira/delivery/history/state.py",
        "spira/delivery/notices/outbox.py",
        "spira/delivery/observation/fingerprints.py",
    ],
)
def test_every_message_of_the_delivery_is_translated(module: str) -> None:
    """What these modules write into the ledger and the status is shown to people; their errors are for operators."""
    messages = catalogue.texts_to_store(catalogue.ROOT / module)
    assert [message for message in messages if not PORTUGUESE.is_known(message.replace("{}", "1"))] == []


def test_a_translation_has_the_same_fields_and_marks() -> None:
    """Fields may change their order."""
    for key in ENTRIES:
        texts = key if isinstance(key, tuple) else (key,)
        for text, translation in zip(texts, translations(key), strict=True):
            assert sorted(PLACEHOLDER.findall(translation)) == sorted(PLACEHOLDER.findall(text))


@given(st.sampled_from(catalogue.stored_messages()), st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1))
def test_any_text_can_stand_in_a_field(message: str, value: str) -> None:
    """A file name or a value of a column, braces included, is kept as it is or translated in its turn."""
    filled = FIELD.sub(lambda _: value, message)
    assert PORTUGUESE.message(filled)
    assert translator(Language.ENGLISH).message(filled) == filled
    if FIELD.search(message) is None:
        assert PORTUGUESE.is_known(filled)


@pytest.mark.parametrize(
    ("message", "translation"),
    [
        (
            "noise test: accuracy is too low: 0.500 [0.300, 0.700], at least 0.80 is required",
            "teste com ruído: acurácia é baixa demais: 0,500 [0,300, 0,700], o mínimo é 0,80",
        ),
        (
            "train: background noise of patients differs by +7.1 dB from that of controls (medians): a network can "
            "separate the classes by it without any sign of illness",
            "treino: ruído de fundo dos pacientes difere em +7,1 dB do valor dos controles (medianas): uma rede pode "
            "separar as classes por isso, sem nenhum sinal de doença",
        ),
        (
            "train, eval: loudness of patients differs by -1.5 to +2.5 dB from that of controls (medians): a network "
            "can separate the classes by it without any sign of illness",
            "treino, validação: intensidade dos pacientes difere em -1,5 a +2,5 dB do valor dos controles (medianas): "
            "uma rede pode separar as classes por isso, sem nenhum sinal de doença",
        ),
        ("Noisy test: AUROC", "Teste com ruído: AUROC"),
        ("Slice: age 20 to 43", "Subgrupo: idade 20 a 43"),
        (
            "eval: a class has only 14 recordings: figures from it are uncertain",
            "validação: uma classe tem só 14 gravações: números dela são incertos",
        ),
        (
            "data: metadata_eval.csv, row 3: class must be 0 (control) or 1 (patient), found '2'\nand 4 more",
            "dados: metadata_eval.csv, linha 3: class deve ser 0 (controle) ou 1 (paciente); encontrado: '2'\ne mais 4",
        ),
        (
            "attempt 1 of 4 failed; next attempt at 06:30:00: cancelled by maria: the wrong data",
            "a tentativa 1 de 4 falhou; próxima tentativa às 06:30:00: cancelado por maria: the wrong data",
        ),
        (
            "notices: address 1 (slack) accepts none since 2026-11-24 06:30; next attempt at 06:35:00: no answer "
            "within 10 s",
            "avisos: endereço 1 (slack) não aceita nenhum desde 24/11/2026 06:30; próxima tentativa às 06:35:00: "
            "nenhuma resposta em 10 s",
        ),
        ("run spira-1 is running since 2026-13-45 06:30:00", "execução spira-1 em andamento desde 2026-13-45 06:30:00"),
        (
            "model repository: Max retries (caused by a failure to connect to 1 and 2)",
            "repositório de modelos: Max retries (caused by a failure to connect to 1 and 2)",
        ),
        ("an unknown message of a later version", "an unknown message of a later version"),
        ("", ""),
    ],
)
def test_a_stored_message_is_translated_with_its_fields(message: str, translation: str) -> None:
    """What stands in a field is translated in its turn; what the catalogue does not have stays English."""
    assert PORTUGUESE.message(message) == translation


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("0.933", "0,933"),
        ("+7.1 dB", "+7,1 dB"),
        ("MLflow 2.22.0", "MLflow 2.22.0"),
        ("voice1.5.wav", "voice1.5.wav"),
        ("[0.3, 0.7]", "[0,3, 0,7]"),
        ("1,234,567 weights", "1.234.567 weights"),
        ("1.234", "1,234"),
        ("1,234.5", "1.234,5"),
        ("seeds 1,2,3", "seeds 1,2,3"),
        ("2026.11", "2026,11"),
    ],
)
def test_numbers_have_the_decimal_sign_of_the_language(text: str, shown: str) -> None:
    """Versions and file names are no numbers."""
    assert PORTUGUESE.number(text) == shown
    assert translator(Language.ENGLISH).number(text) == text


def test_times_are_written_as_people_write_them() -> None:
    """In UTC, whatever the zone of the time."""
    at = datetime(2026, 3, 4, 23, 7, tzinfo=timezone(timedelta(hours=-3)))
    assert translator(Language.ENGLISH).time(at) == "2026-03-05 02:07 UTC"
    assert PORTUGUESE.time(at) == "05/03/2026 02:07 UTC"


@pytest.mark.parametrize(("count", "shown"), [(0, "0 arquivo novo"), (1, "1 arquivo novo"), (2, "2 arquivos novos")])
def test_the_plural_form_is_that_of_the_number(count: int, shown: str) -> None:
    """In Portuguese, nothing is singular."""
    assert PORTUGUESE.ngettext("%(num)s file added", "%(num)s files added", count) == shown


def test_a_field_may_hold_signs_of_a_format() -> None:
    """A value is not formatted again."""
    assert PORTUGUESE.gettext("%(name)s added", name="%(num)s {x} 100 %") == "%(num)s {x} 100 %: novo"
