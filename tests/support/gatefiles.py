"""Two gate files for the tests: every model passes the lenient one, and none the strict one."""

from pathlib import Path

LENIENT = Path(__file__).parent / "gates" / "lenient.yaml"
STRICT = Path(__file__).parent / "gates" / "strict.yaml"
