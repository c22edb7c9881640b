"""Writes docs/choosing.md and its figures: the answers of `boxloss advise`. A test compares what takes no seconds."""

from __future__ import annotations

from pathlib import Path
from textwrap import fill

from boxloss.advice import QUESTIONS, Answer

DOCS = Path(__file__).parent.parent / "docs"
HEAD = """\
# Which loss?

Questions that people ask about losses. All of this, numbers and figures, was computed by the library:

```
boxloss advise                      # everything below, in half a minute; the page is runs/advice/advice.html
boxloss advise l1-or-l2 smooth-l1   # some of it; boxloss advise --list has the names
```

The same figures of the losses and boxes you choose, as PNG or SVG:

```
boxloss plot gradients --losses giou,diou,eiou --case apart,contained --out gradients.svg
boxloss plot landscape --losses giou,eiou,smooth_l1:beta=2 --pred 10x1 --target 1x1 --out landscape.png
boxloss plot classification --out classification.png
```

This page is written by `make choosing`. Its links to the playground open playground.html, which is beside it and which
`boxloss playground` writes, in a browser.
"""


TRY = {
    "l1-or-l2": "preset=overlapping&loss=l2&compare=l1+l2+smooth_l1&show=slope",
    "smooth-l1": "preset=tiny&loss=smooth_l1&compare=l1+l2+smooth_l1&show=slope",
    "which-iou-loss": "preset=disjoint&loss=giou&compare=iou+giou+diou+ciou+eiou",
    "eiou-moving-away": "target=300,220,340,260&pred=360,220,760,260&loss=eiou&compare=giou+diou+ciou+eiou",
    "ranges": "preset=touching&loss=giou&compare=iou+giou+diou+ciou+eiou",
}
"""Where the playground shows what an answer speaks of."""


def section(key: str, answer: Answer) -> str:
    """A question in Markdown; of what takes a formula as markup the signs are escaped."""
    parts = [f"## {QUESTIONS[key].text}", f"```\nboxloss advise {key}\n```", *map(_paragraph, answer.sentences)]
    if answer.wrong:
        parts.append(_paragraph(f"**Often read, and wrong:** {answer.wrong}"))
    parts += [f"![{answer.shows}](choosing-{key}.png)", _paragraph(answer.shows)]
    if answer.table:
        head, *rows = answer.table
        lines = [head, ["---", *("---:" for _ in head[1:])], *rows]
        parts.append("\n".join(f"| {' | '.join(line)} |" for line in lines))
    if answer.caption:
        parts.append(_paragraph(answer.caption))
    if key in TRY:
        parts.append(f"Try it: [such a pair in the playground](playground.html#{TRY[key]}).")
    return "\n\n".join(parts)


def _paragraph(text: str) -> str:
    return fill(text.replace("_", "\\_"), 120, break_long_words=False, break_on_hyphens=False)


def main() -> None:
    answers = {key: question.answer(print) for key, question in QUESTIONS.items()}
    sections = [section(key, answer) for key, answer in answers.items()]
    (DOCS / "choosing.md").write_text("\n".join([HEAD, *(f"{text}\n" for text in sections)]))
    for key, answer in answers.items():
        answer.draw(DOCS / f"choosing-{key}.png")


if __name__ == "__main__":
    main()
