"""Reports that tests compare with: their text and their numbers, without figures and measurements.

`python tests/golden_texts.py` writes them again, to be read with `git diff`.
"""

from __future__ import annotations

import json
from pathlib import Path

from costmodel.book import folder, markdown
from costmodel.book.write import gather, numbers_json

GOLDEN = Path(__file__).with_name("golden")

PAIRS = (("alexnet", "vgg11"), ("torchvision:vit_b_16", "torchvision:mobilenet_v2"))


def written(pair: tuple[str, ...]) -> dict[str, str]:
    """The files of a pair by their names: what the code writes today."""
    report = gather(pair, ("h200", "v100"), lambda *step: None)
    name = "-".join(model.removeprefix("torchvision:") for model in pair)
    return {f"{name}.md": markdown.render(report), f"{name}.json": numbers_json(report).decode()}


def main() -> None:
    """Write all of them again."""
    for pair in PAIRS:
        for name, text in written(pair).items():
            (GOLDEN / name).write_text(text)
    (GOLDEN / "versions.json").write_text(json.dumps(folder.versions(), indent=1) + "\n")


if __name__ == "__main__":
    main()
