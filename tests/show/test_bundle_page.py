"""The page of a bundle: every form drawn, every name escaped, whatever the report lacks."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import msgspec
import numpy as np
import pytest
from click.testing import CliRunner

pytest.importorskip("torch", reason="bundles are built here")

from quant_nets import Mobile
from toy_bundle import write_toy

from edgeco.building import build
from edgeco.bundle import Bundle, open_bundle, write_bundle
from edgeco.cli import main
from edgeco.show.bundle_page import bundle_page
from edgeco.show.inspect import variant_states

NETS = Path(__file__).resolve().parents[1] / "helpers" / "quant_nets.py"
FORMS = ("trt-fp16", "int8", "trt-int8", "trt-int8-float-states", "trt-int8-typed", "trt-int8-typed-float-states")


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    rng = np.random.default_rng(0)
    cases = rng.standard_normal((2, 40, *Mobile.clip[:1], *Mobile.clip[2:])).astype(np.float32)
    np.savez(folder / "cases.npz", x=cases, y=np.zeros(2, np.int64))
    fields = {"model": f"{NETS}:Mobile", "clip": list(Mobile.clip), "precision": ["fp32", "fp16", "int8"]}
    build({**fields, "tensorrt": True, "calibrate": [str(folder / "cases.npz")]}, folder / "mobile.edgeco")
    return folder / "mobile.edgeco"


def parsed(html: str) -> ElementTree.Element:
    text = re.sub(r"<(meta|br)([^>]*)>", r"<\1\2/>", html.removeprefix("<!doctype html>\n"))
    return ElementTree.fromstring(text)


def texts(root: ElementTree.Element) -> Iterator[str]:
    return (text for element in root.iter() for text in (element.text, element.tail) if text)


def test_the_page_shows_every_form_history_and_reason(path: Path) -> None:
    bundle = open_bundle(path)
    root = parsed(bundle_page(bundle))
    cells = {cell.text for cell in root.iter("td")}
    assert set(FORMS) <= cells
    assert {history.name for history in bundle.manifest.histories} <= cells
    report = bundle.report()
    assert report is not None and set(report["forms"]) == set(FORMS)
    assert {reason for form in report["forms"].values() for reason in form.get("floats", {}).values()} <= cells
    titles = [figure.findtext("figcaption") or "" for figure in root.iter("figure")]
    for what in (
        "Cosine with FP32's",
        "Relative error",
        "greatest class",
        "Bytes of all histories",
        "Median of a step",
    ):
        assert sum(what in title for title in titles) == 1, (what, titles)
    by_step = next(f for f in root.iter("figure") if "Cosine" in (f.findtext("figcaption") or ""))
    assert len(list(by_step.iter("polyline"))) >= 3
    ranges = bundle.ranges()
    assert ranges is not None and set(ranges.histories) <= cells
    labels = {svg.get("aria-label") for svg in root.iter("svg")}
    assert {f"magnitudes of {name}" for name in ranges.histories} <= labels


def test_a_form_tells_what_computes_in_int8_and_agreement_by_step(path: Path) -> None:
    report = open_bundle(path).report()
    assert report is not None
    for name, form in report["forms"].items():
        drift = form["drift"][0]
        assert len(drift["agreements"]) == len(drift["errors"]) == len(drift["cosines"]) > 20
        assert np.mean(drift["agreements"]) == pytest.approx(drift["agreement"], abs=0.02)
        if name != "trt-fp16":
            assert len(form["quantised"]) == form["layers"] > 0
    assert report["forms"]["trt-fp16"]["drift"][0]["mean_error"] < 1e-2


def test_half_histories_are_listed_at_half_their_bytes(path: Path) -> None:
    manifest = open_bundle(path).manifest
    whole = variant_states(manifest, "fp32")["bytes"]
    half = manifest.variants["trt-fp16"].histories
    assert half and {stored.dtype for stored in half.values()} == {"float16"}
    kept = {h.name: h.dtype for h in manifest.of_variant("trt-fp16").histories}
    assert variant_states(manifest, "trt-fp16")["bytes"] < whole
    if set(kept.values()) == {"float16"}:
        assert variant_states(manifest, "trt-fp16")["bytes"] * 2 == whole
    typed = {h.dtype for h in manifest.of_variant("trt-int8-typed-float-states").histories}
    assert "float16" in typed and "int8" not in typed
    assert {h.dtype for h in manifest.of_variant("trt-int8-float-states").histories} == {"float32"}


def renamed(path: Path, out: Path, nasty: str) -> Bundle:
    """The bundle with a name in every place that a page shows, one that would be a tag."""
    bundle = open_bundle(path)
    report = bundle.report()
    assert report is not None
    text = json.dumps(report).replace('"output": "output"', f'"output": "{nasty}"').replace("narrow", nasty)
    changed = json.loads(text)
    changed["forms"][nasty] = changed["forms"].pop("int8")
    changed["lines"][0]["where"] = nasty
    members = {name: bundle.read(name) for name in bundle.manifest.members}
    members["report.json"] = json.dumps(changed).encode()
    write_bundle(out, msgspec.structs.replace(bundle.manifest, name=nasty), members)
    return open_bundle(out)


def test_names_are_escaped(path: Path, tmp_path: Path) -> None:
    nasty = "<b onclick=1>&amp;"
    root = parsed(bundle_page(renamed(path, tmp_path / "nasty.edgeco", nasty)))
    assert not list(root.iter("b"))
    assert sum(nasty in text for text in texts(root)) >= 6


def test_a_bundle_of_another_builder_has_a_page_too(tmp_path: Path) -> None:
    path = tmp_path / "toy.edgeco"
    write_toy(path)
    root = parsed(bundle_page(open_bundle(path)))
    assert "States" in {heading.text for heading in root.iter("h2")}


def test_inspect_writes_the_page_and_never_over_the_bundle(path: Path, tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    ran = CliRunner().invoke(main, ["inspect", str(path), "--page", str(page)])
    assert ran.exit_code == 0 and "Variants" in ran.output, ran.output
    assert page.read_text(encoding="utf-8") == bundle_page(open_bundle(path))
    refused = CliRunner().invoke(main, ["inspect", str(path), "--page", str(path)])
    assert refused.exit_code == 2 and "is the bundle itself" in refused.output
    open_bundle(path)
