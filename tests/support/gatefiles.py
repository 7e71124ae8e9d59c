"""Two gates for the tests: one that everything passes, one that nothing does."""

from pathlib import Path

LENIENT = Path(__file__).parent / "gates" / "lenient.yaml"
STRICT = Path(__file__).parent / "gates" / "strict.yaml"
