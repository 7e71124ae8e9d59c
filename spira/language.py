"""The language of pages and notices: English, or Brazilian Portuguese by a gettext catalogue.

Two kinds of text
    A text of a page is looked up in the catalogue. A message that was stored in English, such as the reason in a
    verdict, is compared with the catalogue's texts with fields, ``"{name} is too low: {numbers}"``: what stands in the
    fields is translated in its turn, and filled into the translation. So a page can show verdicts, reports of data
    quality and records of any age in its own language, and files, logs and the command line stay English.

The catalogue is ``locale/pt_BR/LC_MESSAGES/spira.po``; ``make translations`` keeps it in step with the code.
"""

from __future__ import annotations

import gettext
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from importlib import resources

LOCALES = {"pt-BR": "pt_BR"}
"""Language tag -> name of the catalogue's folder; English has no catalogue."""
FIELD = re.compile(r"\{(\w+)\}")
"""A field of a stored message."""
DECIMAL = re.compile(r"(?<![\w.])([+-]?\d+)\.(\d+)(?![\w.]*\d)")
"""A number with a decimal point that is no version, date or name of a file."""


class Language(StrEnum):
    """A language of pages and notices, by its BCP 47 tag."""

    ENGLISH = "en"
    PORTUGUESE = "pt-BR"


@dataclass(frozen=True)
class StoredMessage:
    """A text with fields in the catalogue, which stored messages are compared with."""

    pattern: re.Pattern[str]
    translation: str
    has_words: bool
    """Whether it has words of its own; ``"{reason}: {numbers}"`` has none."""


@dataclass(frozen=True)
class Translator:
    """Translations into one language."""

    language: Language
    catalogue: gettext.NullTranslations
    stored: tuple[StoredMessage, ...] = ()

    def text(self, message: str) -> str:
        """Return a text of the catalogue in the language; the text itself where there is no translation."""
        return self.catalogue.gettext(message) if message else message

    def message(self, message: str) -> str:
        """Return a stored message in the language; in English where the catalogue has no text for it."""
        if self.language == Language.ENGLISH or not message:
            return message
        translated = self.catalogue.gettext(message)
        if translated != message:
            return translated
        for stored in self.stored:
            if found := stored.pattern.fullmatch(message):
                return stored.translation.format(
                    **{name: self.message(part) for name, part in found.groupdict().items()}
                )
        return self.number(message)

    def is_known(self, message: str) -> bool:
        """Return whether the catalogue has a text for a stored message, whatever stands in the fields among words."""
        if self.catalogue.gettext(message) != message or not re.search("[a-z]{2}", message):
            return True
        for stored in self.stored:
            if found := stored.pattern.fullmatch(message):
                return stored.has_words or all(map(self.is_known, found.groups()))
        return False

    def number(self, text: str) -> str:
        """Return a text with the language's decimal sign in its numbers."""
        return text if self.language == Language.ENGLISH else DECIMAL.sub(r"\1,\2", text)


@cache
def translator(language: Language) -> Translator:
    """Return the translations into a language."""
    if language == Language.ENGLISH:
        return Translator(language, gettext.NullTranslations())
    from babel.messages.mofile import write_mo  # here, because every command imports this module for its options
    from babel.messages.pofile import read_po

    text = (resources.files("spira") / "locale" / LOCALES[language] / "LC_MESSAGES" / "spira.po").read_bytes()
    catalogue = read_po(io.BytesIO(text))
    compiled = io.BytesIO()
    write_mo(compiled, catalogue)
    compiled.seek(0)
    pairs = {str(entry.id): str(entry.string) for entry in catalogue if entry.string and isinstance(entry.id, str)}
    return Translator(language, gettext.GNUTranslations(compiled), tuple(_stored(pairs)))


def _stored(pairs: dict[str, str]) -> Iterator[StoredMessage]:
    """Yield the texts with fields, those with the most words of their own first."""
    with_fields = [message for message in pairs if FIELD.search(message)]
    for message in sorted(with_fields, key=lambda text: len(FIELD.sub("", text)), reverse=True):
        parts = FIELD.split(message)  # text, field, text, field, ..., text
        pattern = "".join(f"(?P<{part}>.+)" if odd % 2 else re.escape(part) for odd, part in enumerate(parts))
        yield StoredMessage(re.compile(pattern), pairs[message], bool(re.search("[a-z]", FIELD.sub("", message))))
