"""The page of `python -m benchmarks report` as a file: on its own, in both themes, on a phone; its plots."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree

import pytest
from PIL import Image

from benchmarks import readme
from tests.benchmarks.report_cases import page_of, page_of_all, write


@pytest.fixture(scope="module")
def all_kinds(tmp_path_factory):
    """The page of one file of each kind, and its folder."""
    folder = tmp_path_factory.mktemp("all")
    return page_of_all(folder), folder / "page"


def test_the_page_asks_for_nothing_from_outside(all_kinds):
    page, _ = all_kinds
    for tag, attributes, _ in page.tags:
        assert tag not in ("script", "link", "img", "iframe", "object", "base", "image")
        for name, value in attributes.items():
            assert not name.startswith("on")
            if name in ("src", "srcset", "href", "xlink:href", "data", "action"):
                assert value.startswith("#"), (tag, name, value)
    assert "@import" not in page.text
    assert all(inside.startswith("#") for inside in re.findall(r"url\(([^)]*)\)", page.text))


def test_ids_are_unique_and_what_refers_to_them_finds_them(all_kinds):
    page, _ = all_kinds
    ids = [attributes["id"] for _, attributes, _ in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    used = {attributes["href"][1:] for _, attributes, _ in page.tags if "href" in attributes}
    used |= set(re.findall(r"url\(#([^)]*)\)", page.text))
    assert used <= set(ids)


def luminance(colour: str) -> float:
    channels = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    """Of the Web Content Accessibility Guidelines: from 1 to 21."""
    bright, faint = sorted((luminance(one), luminance(other)), reverse=True)
    return (bright + 0.05) / (faint + 0.05)


def themes(text: str) -> tuple[dict[str, str], dict[str, str]]:
    """The variables of the light and of the dark theme."""
    light, dark = text.split("@media(prefers-color-scheme:dark)", 1)
    found = [
        dict(re.findall(r"(--c[0-9a-f]{6}):(#[0-9a-f]{6})", part.split("}")[0])) for part in (light, dark)
    ]
    return found[0], found[1]


def test_both_themes_have_every_colour_and_plots_are_legible_in_both(all_kinds):
    page, _ = all_kinds
    light, dark = themes(page.text)
    used = set(re.findall(r"var\((--c[0-9a-f]{6})\)", page.text))
    assert used <= set(light)
    assert set(light) == set(dark)
    grid = "--ce1e4e8"
    assert luminance(light["--cffffff"]) > 0.9
    assert luminance(dark["--cffffff"]) < 0.05
    for theme in (light, dark):
        ground = theme["--cffffff"]
        assert contrast(theme["--c1f2328"], ground) >= 7  # text
        assert contrast(theme["--c59636e"], ground) >= 4.5  # what is less important
        for name in used - {grid, "--cffffff"}:
            assert contrast(theme[name], ground) >= 3, name  # lines, signs and bars
        assert contrast(theme[grid], ground) < 2  # the grid stays behind
    # No plot has a colour that does not follow the theme.
    for plot in re.findall(r"<svg .*?</svg>", page.text, re.DOTALL):
        assert not re.search(r"#[0-9a-fA-F]{6}\b", plot)
        assert not re.search(r"(fill|stroke): (black|white)", plot)


def test_it_fits_a_phone(all_kinds):
    page, _ = all_kinds
    metas = [attributes for tag, attributes, _ in page.tags if tag == "meta"]
    assert any("width=device-width" in (meta.get("content") or "") for meta in metas)
    for tag, attributes, ancestors in page.tags:
        if tag == "table":
            assert ancestors[-1] == "div.scroll"
        if tag == "svg":
            assert "viewbox" in attributes
            assert "width" not in attributes


def test_plots_are_written_as_svg_of_both_themes_and_as_png(all_kinds):
    page, out = all_kinds
    vectors, pictures = (sorted((out / "plots").glob(f"*.{suffix}")) for suffix in ("svg", "png"))
    assert len(vectors) == len(pictures) == page.text.count("<figure>")
    for vector, picture in zip(vectors, pictures, strict=True):
        assert vector.stem == picture.stem
        assert ElementTree.parse(vector).getroot().tag.endswith("svg")
        assert "prefers-color-scheme:dark" in vector.read_text()
        with Image.open(picture) as image:
            assert image.width > 600
            assert len(set(image.convert("L").resize((64, 64)).tobytes())) > 10
    assert not list(out.rglob("*.partial"))


def test_the_same_files_give_the_same_page(tmp_path):
    path = write(tmp_path, "latency")
    texts = []
    for folder in ("one", "two"):
        page_of(path, out=tmp_path / folder)
        plot = next(iter((tmp_path / folder / "plots").glob("*.svg"))).read_bytes()
        texts.append(((tmp_path / folder / "index.html").read_bytes(), plot))
    assert texts[0] == texts[1]


def test_the_pictures_of_the_documents_are_drawn_from_committed_files(tmp_path):
    for kind in ("models", "ladder", "memory"):
        write(tmp_path / "some-device", kind)
    write(tmp_path / "local", "models")
    drawn = readme.draw_pictures(tmp_path)
    assert drawn == [tmp_path / "some-device" / name for name in ("ladder.png", "models.png")]
    assert sorted(tmp_path.rglob("*.png")) == drawn
    for path in drawn:
        with Image.open(path) as image:
            assert len(set(image.convert("L").resize((64, 64)).tobytes())) > 10
