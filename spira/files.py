"""Writing a file so that under its name there is the old content or the whole new one, never a part."""

from __future__ import annotations

from pathlib import Path


def replace(path: Path, content: str) -> None:
    """Write text, UTF-8, under a temporary name beside ``path`` and rename it; the folder must be there."""
    temporary = path.with_name(f"{path.name}.writing")
    temporary.write_text(content, encoding="utf-8")
    temporary.replace(path)
