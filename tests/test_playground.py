"""The playground's page: its mathematics in Node against torch, and what the file holds."""

from __future__ import annotations

import json
import math
import re
import shutil
import subprocess
from pathlib import Path

import pairs
import pytest
import torch

import boxloss
from boxloss import LOSSES, playground
from boxloss.cli import main
from boxloss.kernels import javascript
from boxloss.kernels.trace import NoRuleError, trace
from boxloss.losses import NonNegative, UpToOne
from boxloss.losses._define import _own_parameters
from boxloss.losses._parameters import Size

NODE = shutil.which("node")
INPUTS = {"image_size": (800.0, 600.0), "constant": 12.5, "mean": 0.625}
REPOSITORY = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The page with every loss, and what it was made of; once, since tracing all losses takes a while."""
    path = tmp_path_factory.mktemp("playground") / "page.html"
    told, found = [], []
    with pytest.MonkeyPatch.context() as patch:
        entries = playground.entries
        patch.setattr(playground, "entries", lambda *given: found.extend(entries(*given)) or found)
        assert playground.write_playground(path, tell=told.append) == []
    assert told == list(playground.every_loss())
    return found, path.read_text()


def pairs_of_all_kinds() -> tuple[torch.Tensor, torch.Tensor]:
    drawn = [pairs.draw(kind, 60, torch.float64, seed=9) for kind in pairs.KINDS]
    box = torch.tensor([2.0, 3.0, 5.0, 7.0], dtype=torch.float64)
    point, line = box[[0, 1, 0, 1]], box[[0, 1, 2, 1]]
    inverted = box[[2, 3, 0, 1]]
    special = [(a, b) for a in (box, point, line, inverted) for b in (box, point, line, inverted)]
    special += [(box, box.clone().fill_(bad)) for bad in (math.nan, math.inf)]
    drawn.append(tuple(torch.stack(side) for side in zip(*special, strict=True)))
    pred, target = (torch.cat(side) for side in zip(*drawn, strict=True))
    return pred, target


def in_node(program: str, *arguments: Path) -> None:
    subprocess.run([NODE, "-e", program, "--", *map(str, arguments)], check=True, timeout=120)


@pytest.mark.skipif(NODE is None, reason="Node is not installed")
def test_javascript_is_torch(made, tmp_path):
    """Every value and gradient to 1e-12, of boxes of every kind; NaN and infinity where torch has them."""
    entries, _ = made
    pred, target = pairs_of_all_kinds()
    assert len(pred) >= 400
    asked = [[x for name in of.inputs for x in playground._numbers(INPUTS[name])] for of in entries]
    given, found = tmp_path / "given", tmp_path / "found"
    given.write_bytes(torch.cat((pred, target), 1).numpy().tobytes())
    functions = ",".join(f"[{of.code},{json.dumps(numbers)}]" for of, numbers in zip(entries, asked, strict=True))
    in_node(
        f"""{javascript.RUNTIME}
        const fs = require("fs"), [from, to] = process.argv.slice(1);
        const bytes = fs.readFileSync(from);
        const boxes = new Float64Array(bytes.buffer, bytes.byteOffset, bytes.length / 8);
        const all = [], g = new Float64Array(4);
        for (const [f, numbers] of [{functions}])
          for (let k = 0; k < boxes.length; k += 8) all.push(f([...boxes.slice(k, k + 8), ...numbers], g), ...g);
        fs.writeFileSync(to, new Uint8Array(Float64Array.from(all).buffer));""",
        given,
        found,
    )
    got = torch.frombuffer(bytearray(found.read_bytes()), dtype=torch.float64).reshape(len(entries), len(pred), 5)
    for of, (value, *gradient) in zip(entries, got.permute(0, 2, 1), strict=True):
        wanted_value, wanted = by_torch(of, pred, target)
        close(of.name, value, wanted_value, wanted_value.abs())
        close(f"gradient of {of.name}", torch.stack(gradient, 1), wanted, wanted.abs().amax(1, keepdim=True))


def by_torch(of, pred, target):
    pred = pred.clone().requires_grad_()
    parameters = of.parameters | {name: INPUTS[name] for name in of.inputs}
    value = of.loss.formula(boxloss.geometry.BoxPair(pred, target), **parameters)
    (gradient,) = torch.autograd.grad(value.sum(), pred)
    return value.detach(), gradient


def close(name, got, wanted, size):
    off = (got - wanted).abs() > 1e-12 * size
    same = (got == wanted) | (got.isnan() & wanted.isnan())
    bad = (off | ~off & ~got.isfinite()) & ~same
    assert not bad.any(), f"{name}: {got[bad][:3].tolist()}, expected {wanted[bad][:3].tolist()}"


def test_the_page(made):
    _, page = made
    assert len(page.encode()) <= 300_000
    if torch.__version__.startswith("2.14"):  # by which it was written
        assert page == (REPOSITORY / "docs/playground.html").read_text(), "run `make playground`"
    for name in [*LOSSES, "wiou:version=v2", "wiou:version=v3"]:
        assert f'{{...{{"name": "{name}"' in page
    assert "Left out" not in page
    for loss in LOSSES.values():
        assert json.dumps(loss.definition, ensure_ascii=False) in page
        assert json.dumps(loss.source, ensure_ascii=False) in page
    assert not re.findall(r"(?:src|href|action)=|@import|url\(|fetch\(|XMLHttpRequest|import\(", page)  # one file
    assert set(re.findall(r"https?://[^\"\s]+", page)) == {"http://www.w3.org/2000/svg"}  # a name, not an address
    assert page.count("<script") == page.count("</script>") == 1


def test_every_field_has_a_name_for_a_screen_reader(made):
    _, page = made
    ids = re.findall(r'<(?:input|select)[^>]* id="([^"]+)"', page)
    assert len(ids) > 15
    for name in ids:
        assert f'for="{name}"' in page or re.search(rf'<label>[^<]*<(?:input|select)[^>]* id="{name}"', page), name
    for tag in re.findall(r"<(?:svg|canvas)[^>]*>", page):
        assert "role=" in tag or 'aria-hidden="true"' in tag, tag


def test_state_is_an_input():
    (of,) = playground.entries({"v3": ("wiou", {"version": "v3"})}, lambda _: None)
    assert of.inputs == ("mean",)
    assert "$x[8]" in of.code
    (told,) = playground.entries({"v3": ("wiou", {"version": "v3", "mean": 0.5})}, lambda _: None)
    assert told.inputs == ()
    (plain,) = playground.entries({"wiou": ("wiou", {})}, lambda _: None)
    assert plain.inputs == ()
    (image,) = playground.entries({"mpdiou": ("mpdiou", {})}, lambda _: None)
    assert image.inputs == ("image_size",)
    assert "$x[9]" in image.code
    assert playground.numbers([of, image]) == {"mean": {"value": 1.0, "low": 1e-6, "high": 1, "losses": ["v3"]}}


def own(monkeypatch, **formulas):
    """Losses of one's own, as `define` would enter them."""
    for name, formula in formulas.items():
        facts = vars(LOSSES["iou"]) | {"name": name, "formula": formula, "parameters": _own_parameters(formula)}
        monkeypatch.setitem(LOSSES, name, boxloss.losses.Loss(**facts))
    return {name: (name, {}) for name in formulas}


def test_what_losses_of_ones_own_ask_for(monkeypatch):
    def share(pair, *, part: UpToOne):
        return part * pair.iou_loss

    def stepping(pair, *, step: float):
        return step * pair.iou_loss

    def parted(pair, *, part: NonNegative):
        return part * pair.iou_loss

    def framed(pair, *, frame: Size):
        return pair.iou_loss * frame[0]

    def worded(pair, *, word: str):
        return pair.iou_loss

    losses = own(monkeypatch, share=share, stepping=stepping, parted=parted, framed=framed, worded=worded)
    *found, no_frame, no_word = playground.entries(losses, lambda _: None)
    assert playground.numbers(found) == {
        "part": {"value": 1.0, "low": math.ulp(0.0), "high": 1, "losses": ["share", "parted"]},
        "step": {"value": 32.0, "low": -1e9, "high": 1e9, "losses": ["stepping"]},
    }
    assert no_frame[1].startswith("TypeError: framed: parameter 'frame' is required: two finite numbers")
    assert no_word[1].startswith("TypeError: worded: parameter 'word' is required")
    assert playground.read_losses("share,framed:frame=(2,3)")["framed:frame=(2,3)"] == ("framed", {"frame": (2, 3)})
    with pytest.raises(ValueError, match=r"'frame' is required.*given as framed:NAME=VALUE"):
        playground.read_losses("framed")


def test_markup_stays_text(tmp_path, monkeypatch):
    def evil(pair):
        """</script><img src=x onerror=alert(1)>

        {{ 1 + 1 }} <!-- {% raw %}
        """
        return pair.iou_loss

    def silent(pair):
        raise NotImplementedError

    losses = own(monkeypatch, evil=evil, silent=silent)
    out = tmp_path / "page.html"
    given = {"<i> &": losses["evil"], "</script>": losses["silent"]}
    assert playground.write_playground(out, given) == [("</script>", "NotImplementedError")]
    text = out.read_text()
    assert text.count("</script>") == 1
    assert "<!--" not in text
    assert "<img" not in text.replace('"summary": "<\\/script><img src=x onerror=alert(1)>"', "")
    assert "<code>&lt;/script&gt;</code>: NotImplementedError" in text
    assert "{{ 1 + 1 }}" in text
    assert '"name": "<i>_&"' in text


def test_what_cannot_be_traced_is_left_out_with_the_reason(tmp_path, monkeypatch, capsys):
    def branching(pair):
        return pair.iou_loss if pair.iou_loss > 0.5 else 2 * pair.iou_loss

    def unknown(pair):
        return pair.iou_loss.sinh()

    def mine(pair):
        return 2 * pair.iou_loss

    own(monkeypatch, branching=branching, unknown=unknown, mine=mine)
    out = tmp_path / "page.html"
    assert main(["playground", "-o", str(out), "--losses", "iou,branching,unknown,mine"]) == 0
    said = capsys.readouterr().err
    assert "warning: unknown is left out: NoRuleError: no rule for aten.sinh.default" in said
    assert "warning: branching is left out: " in said
    text = out.read_text()
    assert "<code>unknown</code>: NoRuleError: no rule for aten.sinh.default" in text
    assert "<code>branching</code>: " in text
    assert '"call": "iou_loss"' in text
    assert '"call": "LOSSES[\'mine\'].function"' in text
    assert main(["playground", "-o", str(out), "--losses", "unknown"]) == 1
    assert "none of its losses can be traced; unknown: NoRuleError" in capsys.readouterr().err
    assert out.read_text() == text


def test_an_operation_without_a_rule_in_javascript(monkeypatch):
    program = trace(LOSSES["kld"].formula, {"tau": 1.0}, torch.float64)
    assert "$log1p(" in javascript.function(program)
    monkeypatch.delitem(javascript._CALLS, "log1p")
    with pytest.raises(NoRuleError, match="no rule in JavaScript for log1p"):
        javascript.function(program)


def test_printed_by_hand():
    program = trace(LOSSES["l1"].formula, {}, torch.float64)
    code = javascript.function(program)
    assert code.startswith("($x,$g)=>{const a=$x[0],b=$x[1],c=$x[2],d=$x[3],e=$x[4],f=$x[5],g=$x[6],h=$x[7],i=a-e,")
    assert javascript._number(-0.0, whole=False) == "-0.0"
    assert [javascript._number(x, whole=False) for x in (1.0, 0.1, math.nan, math.inf, -math.inf, 1e300)] == [
        "1",
        "0.1",
        "NaN",
        "Infinity",
        "-Infinity",
        "1e+300",
    ]
    assert javascript._number(0x7FF0000000000000, whole=True) == str(0x7FF00000)
    with pytest.raises(NoRuleError, match="upper 32"):
        javascript._number(0x7FF0000000000001, whole=True)
    names = [javascript._name(k) for k in range(4000)]
    assert len(set(names)) == len(names)
    assert not {"do", "if", "in"} & set(names)


@pytest.mark.parametrize(
    ("losses", "message"),
    [
        ("guou", "no loss named 'guou'; did you mean 'giou'?"),
        ("giou:beta=1", "giou: unknown parameter 'beta'"),
        ("smooth_l1:beta=-1", "beta: expected a finite number >= 0, got -1"),
        ("nwd:constant=0", "constant: expected a finite number in [1e-9, 1e9], got 0"),
        ("giou,,iou", "expected names separated by commas"),
        ("nwd:constant=1:constant=2", "a parameter is given twice"),
    ],
)
def test_bad_losses(losses, message, tmp_path, capsys):
    out = tmp_path / "page.html"
    assert main(["playground", "-o", str(out), "--losses", losses]) == 1
    assert message in capsys.readouterr().err
    assert not out.exists()


def test_a_folder_is_no_page(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(playground, "entries", None)  # it is said before anything is traced
    assert main(["playground", "-o", str(tmp_path)]) == 1
    assert f"{tmp_path}: expected the name of a file" in capsys.readouterr().err


def test_command(tmp_path, capsys, monkeypatch):
    opened = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    out = tmp_path / "a folder" / "pläy.html"
    assert main(["playground", "-o", str(out), "--open", "--losses", "iou, nwd:constant=16, smooth_l1:beta=2"]) == 0
    assert opened == [out.resolve().as_uri()]
    told = capsys.readouterr()
    assert told.out == f"{out}\n"
    assert told.err.splitlines() == ["… 1 of 3: iou", "… 2 of 3: nwd:constant=16", "… 3 of 3: smooth_l1:beta=2"]
    assert "boxloss.nwd_loss" not in out.read_text()
    assert '"call": "nwd_loss", "keywords": "constant=16", "inputs": []' in out.read_text()


def test_docs_link_to_presets_and_losses_that_there_are():
    linked = []
    for path in sorted(REPOSITORY.glob("docs/*.md")):
        linked += re.findall(r"playground\.html#([^)\s]+)", path.read_text())
    assert len(linked) >= 5
    for fragment in linked:
        state = dict(part.split("=") for part in fragment.split("&"))
        if "preset" in state:
            assert state.pop("preset") in playground.PRESETS
        else:
            for box in (state.pop("pred"), state.pop("target")):
                x1, y1, x2, y2 = map(float, box.split(","))
                assert x1 < x2
                assert y1 < y2
        for name in [state.pop("loss"), *state.pop("compare").split("+")]:
            assert name in playground.every_loss()
        assert set(state) <= {"line", "show"}
