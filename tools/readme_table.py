"""Writes the table of losses into README.md, between its two markers. A test compares it with `LOSSES`."""

from __future__ import annotations

from pathlib import Path

from boxloss import LOSSES
from boxloss.cli import LEGEND, bounds_text, loss_facts

README = Path(__file__).parent.parent / "README.md"
BEGIN, END = "<!-- losses: written by `make readme` -->", "<!-- end of losses -->"


def table() -> str:
    rows = ["| loss | value | own parameters | bounds | unit | source |", "|---|---|---|---|---|---|"]
    for facts in map(loss_facts, LOSSES.values()):
        parameters = "<br>".join(
            f"`{name}`, required" if p["required"] else f"`{name}={p['default']!r}`"
            for name, p in facts["parameters"].items()
        )
        value = facts["formula"] + (f"<br>**{facts['warning']}**" if facts["warning"] else "")
        cells = [f"`{facts['function']}`", value, parameters, bounds_text(facts), facts["unit"], facts["source"]]
        rows.append("| " + " | ".join(cell.replace("|", "\\|") or "–" for cell in cells) + " |")
    return "\n".join([*rows, "", LEGEND])


def with_table(text: str) -> str:
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{table()}\n{END}{after}"


if __name__ == "__main__":
    README.write_text(with_table(README.read_text()))
