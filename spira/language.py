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
from datetime import UTC, date, datetime
from enum import StrEnum
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jinja2 import Environment

LOCALES = {"pt-BR": "pt_BR"}
"""Language tag -> name of the catalogue's folder; English has no catalogue."""
FIELD = re.compile(r"\{(\w+)\}")
"""A field of a stored message."""
DECIMAL = re.compile(r"(?<![\w.])([+-]?\d+)\.(\d+)(?![\w.]*\d)")
"""A number with a decimal point that is no version, date or name of a file."""
THOUSANDS = re.compile(r"(?<![\w.,])[+-]?[1-9]\d{0,2}(?:,\d{3})+(?=\.\d+(?![\w.])|(?![\w.,]*\d))")
"""A number with commas between thousands, up to its decimal point."""

NUMERIC_FIELDS = frozenset({"time", "due", "row"})
"""Fields of stored messages with a time or the number of a row: a colon after them is no part of them."""
CONNECTING = frozenset({"and", "by", "to"})
"""Words by which a message is not recognised."""
DATE = re.compile(r"(?<![\w-])\d{4}-\d\d-\d\d(?= \d\d:\d\d)")
"""A date as the code writes it before a time of day."""


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
    """Whether it has words of its own that make it unlike others; ``"{reason}: {numbers}"`` has none."""
    is_connecting: bool
    """Whether its only words are connecting ones, as in ``"{low} to {high}"``; then the fields must be known."""
    separator: str
    """What stands between the first two fields."""


@dataclass(frozen=True)
class Translator:
    """Translations into one language."""

    language: Language
    catalogue: gettext.NullTranslations
    stored: tuple[StoredMessage, ...] = ()

    def message(self, message: str) -> str:
        """Return a stored message in the language; in English where the catalogue has no text for it."""
        if self.language == Language.ENGLISH or not message:
            return message
        translated = self.catalogue.gettext(message)
        if translated != message:
            return translated
        if "\n" in message:
            return "\n".join(self.message(line) for line in message.split("\n"))
        for stored in self.stored:
            if fields := self._fields(stored, message, {}):
                return stored.translation.format(**{name: self.message(part) for name, part in fields.items()})
        return self.number(self._dates(message))

    def gettext(self, message: str, **fields: object) -> str:
        """Return a text of the catalogue, with its fields ``%(name)s`` filled in."""
        return self.catalogue.gettext(message) % fields

    def ngettext(self, singular: str, plural: str, num: int, **fields: object) -> str:
        """Return the form of a text for a number, which is also the field ``%(num)s``."""
        return self.catalogue.ngettext(singular, plural, num) % {"num": num, **fields}

    def is_known(self, message: str) -> bool:
        """Return whether the catalogue has a text for a stored message, whatever stands in the fields among words."""
        return self._is_known(message, {})

    def _is_known(self, message: str, known: dict[str, bool]) -> bool:
        """Return whether a message is known; ``known`` holds the answers so far, as parts of a text repeat."""
        if "\n" in message:
            return all(self._is_known(line, known) for line in message.split("\n"))
        if message not in known:
            known[message] = self.catalogue.gettext(message) != message or not re.search("[a-z]{2}", message)
            for stored in () if known[message] else self.stored:
                if fields := self._fields(stored, message, known):
                    known[message] = stored.has_words or all(self._is_known(part, known) for part in fields.values())
                    break
        return known[message]

    def _fields(self, stored: StoredMessage, message: str, known: dict[str, bool]) -> dict[str, str] | None:
        """Return the fields of a message by name, or None if it is another one.

        A text without words, such as ``"{reason}: {numbers}"``, fits in several ways: that counts in which all parts
        are known.
        """
        found = stored.pattern.fullmatch(message)
        if found is None or stored.has_words:
            return found and found.groupdict()
        for split in re.finditer(re.escape(stored.separator), message):
            parts = message[: split.start()], message[split.end() :]
            if all(part and self._is_known(part, known) for part in parts):
                return dict(zip(found.groupdict(), parts, strict=True))
        return None if stored.is_connecting else found.groupdict()  # a sentence of another program has "by" too

    def number(self, text: str) -> str:
        """Return a text with the language's signs in its numbers: of decimals and of thousands."""
        if self.language == Language.ENGLISH:
            return text
        thousands = THOUSANDS.sub(lambda number: number[0].replace(",", "\0"), text)  # no decimal point is made of them
        return DECIMAL.sub(r"\1,\2", thousands).replace("\0", ".")

    def _dates(self, text: str) -> str:
        """Return a text with the dates before a time of day as the language writes them."""
        return DATE.sub(self._date, text)

    def _date(self, found: re.Match[str]) -> str:
        from babel.dates import format_date

        try:
            return format_date(date.fromisoformat(found[0]), "short", LOCALES[self.language])
        except ValueError:  # no date of the calendar
            return found[0]

    def time(self, at: datetime) -> str:
        """Return a time to the minute, in UTC: in English as ISO 8601 has it, else as people write it."""
        at = at.astimezone(UTC)
        if self.language == Language.ENGLISH:
            return f"{at:%Y-%m-%d %H:%M} UTC"
        from babel.dates import format_date, format_time

        locale = LOCALES[self.language]
        return f"{format_date(at, 'short', locale)} {format_time(at, 'short', locale=locale)} UTC"


ENGLISH = Translator(Language.ENGLISH, gettext.NullTranslations())
"""Texts as the code has them."""


@cache
def translator(language: Language) -> Translator:
    """Return the translations into a language."""
    if language == Language.ENGLISH:
        return ENGLISH
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
        pattern = "".join(
            f"(?P<{part}>{_content(part, parts[place + 1])})" if place % 2 else re.escape(part)
            for place, part in enumerate(parts)
        )
        words = re.findall("[a-z]+", FIELD.sub("", message))
        has_words = not CONNECTING.issuperset(words)
        yield StoredMessage(re.compile(pattern), pairs[message], has_words, bool(words) and not has_words, parts[2])


def _content(field: str, following: str) -> str:
    """Return the pattern of a field's content, by the name of the field and the text after it."""
    if field in NUMERIC_FIELDS:
        return r"\d[\d :-]*"
    return ".+?" if following == " " else ".+"  # before a space one word, such as the name of a column


def sentence(text: str) -> str:
    """Return a text with a capital at its beginning."""
    return text[:1].upper() + text[1:]


def page_environment(words: Translator) -> Environment:
    """Return the environment of a page's template.

    It escapes HTML, refuses unknown names, and translates ``_("...")``; ``sentence`` begins a text with a capital.
    """
    from jinja2 import Environment, StrictUndefined  # here: the command line imports this module and makes no page

    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.i18n"]
    )
    environment.install_gettext_translations(words.catalogue, newstyle=True)  # type: ignore[attr-defined]
    environment.filters["sentence"] = sentence
    return environment
