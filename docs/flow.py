"""Draw docs/images/flow.svg from the compiled pipeline, so that the picture shows what runs.

.venv/bin/python docs/flow.py
"""

from __future__ import annotations

import io
import itertools
import tempfile
from pathlib import Path
from typing import Any

import matplotlib
import yaml

matplotlib.use("svg")
from matplotlib import pyplot as plt
from matplotlib.patches import FancyBboxPatch

from pipelines.training import CompileOptions, compile_pipeline

ROOT = Path(__file__).parents[1]
PICTURE = ROOT / "docs" / "images" / "flow.svg"
OUTPUTS = {
    "preprocess": "checks and decodes\nthe data set",
    "train": "one network\na seed",
    "evaluate": "metrics and\nthe gate's verdict",
    "push": "a version in\nMLflow",
    "deploy": "it serves and\nis champion",
    "reject": "a logged run\nwith reasons",
}
WIDTH, HEIGHT = 1.7, 0.95
GREEN, RED, BLUE, INK = "#d5eee6", "#f6dcd7", "#dcebf5", "#22333b"


def compiled() -> dict[str, Any]:
    """Return the compiled pipeline of a run that deploys an approved model, as on one machine."""
    with tempfile.TemporaryDirectory() as folder:
        compile_pipeline(Path(folder) / "training.yaml", options=CompileOptions(target="{}"))
        (spec, *_) = yaml.safe_load_all((Path(folder) / "training.yaml").read_text())
    return spec


def tasks(spec: dict[str, Any]) -> list[str]:
    """Return the names of the pipeline's stages, each after the stages that it depends on."""
    components = spec["components"]

    def walk(dag: dict[str, Any]) -> list[str]:
        pending, names = dict(dag["tasks"]), []
        done: set[str] = set()
        while pending:
            ready = next(name for name, task in pending.items() if set(task.get("dependentTasks", ())) <= done)
            component = components[pending.pop(ready)["componentRef"]["name"]]
            done.add(ready)
            names += walk(component["dag"]) if "dag" in component else [ready]
        return names

    return [name for name in walk(spec["root"]["dag"]) if name in OUTPUTS]


def draw(names: list[str]) -> str:
    """Return the picture as SVG: the stages from left to right, the rejected branch below."""
    plt.rcParams.update({"svg.hashsalt": "spira", "font.family": "sans-serif", "svg.fonttype": "none"})
    main = [name for name in names if name != "reject"]
    places = {name: (2.75 * column, 0.0) for column, name in enumerate(main)}
    places["reject"] = (places["push"][0], -1.45)
    figure, axes = plt.subplots(figsize=(12, 3.1))
    for name in names:
        _box(axes, name, *places[name])
    for before, after in itertools.pairwise(main):
        label = "approved" if after == "push" else ""
        _arrow(axes, places[before], places[after], label)
    _arrow(axes, places["evaluate"], places["reject"], "rejected")
    axes.set(xlim=(-0.3, places[main[-1]][0] + WIDTH + 0.3), ylim=(-1.9, 1.25))
    axes.set_aspect("equal")
    axes.axis("off")
    picture = io.StringIO()
    figure.savefig(picture, format="svg", bbox_inches="tight", metadata={"Date": None}, facecolor="white")
    plt.close(figure)
    return "\n".join(line.rstrip() for line in picture.getvalue().splitlines()) + "\n"


def _box(axes: Any, name: str, x: float, y: float) -> None:
    color = RED if name == "reject" else GREEN if name in ("push", "deploy") else BLUE
    style = "round,pad=0.02,rounding_size=0.12"
    axes.add_patch(FancyBboxPatch((x, y), WIDTH, HEIGHT, boxstyle=style, facecolor=color, edgecolor=INK))
    axes.text(x + WIDTH / 2, y + HEIGHT * 0.72, name, ha="center", va="center", weight="bold", color=INK)
    axes.text(x + WIDTH / 2, y + HEIGHT * 0.32, OUTPUTS[name], ha="center", va="center", fontsize=8, color=INK)


def _arrow(axes: Any, start: tuple[float, float], end: tuple[float, float], label: str) -> None:
    begin, target = (start[0] + WIDTH + 0.04, start[1] + HEIGHT / 2), (end[0] - 0.04, end[1] + HEIGHT / 2)
    axes.annotate("", xy=target, xytext=begin, arrowprops={"arrowstyle": "->", "color": INK, "lw": 1.4})
    if label:
        middle = (begin[0] + target[0]) / 2, (begin[1] + target[1]) / 2
        offset = 0.16 if end[1] == start[1] else -0.12
        align = "center" if end[1] == start[1] else "right"
        axes.text(middle[0], middle[1] + offset, label, ha=align, fontsize=8, color=INK)


def main() -> None:
    """Write the picture."""
    PICTURE.parent.mkdir(exist_ok=True)
    PICTURE.write_text(draw(tasks(compiled())), encoding="utf-8")


if __name__ == "__main__":
    main()
