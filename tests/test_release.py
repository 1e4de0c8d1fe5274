"""A release: its package stands alone, its archives come out the same twice, its PDF is whole."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import zipfile

import nbformat
import pytest
import yaml

from tools import opening, release

from .conftest import CHAPTERS, ROOT, missing


def test_pages_are_those_of_the_book_in_order():
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
    names = list(release.pages(toc))
    assert names[0] == "index"
    assert len(names) == len(set(names))
    assert all((CHAPTERS / f"{name}.md").exists() for name in names)
    order = ["01-introduction", "02-classical", "02-1-notation", "03-8-unification", "ledger"]
    assert sorted(order, key=names.index) == order


def test_notebooks_bring_their_records():
    names = [name for _, name in release.notebooks()]
    assert "notebooks/02-5-back-propagation.ipynb" in names
    assert "notebooks/results/backprop-mnist-laptop.json" in names


def test_archives_come_out_the_same_twice(tmp_path):
    (tmp_path / "b").write_text("two")
    (tmp_path / "a").write_text("one")
    files = [(tmp_path / name, f"all/{name}") for name in "ba"]
    for name in ("1.zip", "2.zip"):
        release.archive(tmp_path / name, files)
        files.reverse()
    assert (tmp_path / "1.zip").read_bytes() == (tmp_path / "2.zip").read_bytes()
    with zipfile.ZipFile(tmp_path / "1.zip") as packed:
        assert packed.namelist() == ["all/a", "all/b"]
        assert packed.read("all/b") == b"two"


def test_checksums_are_those_of_the_files(tmp_path):
    (tmp_path / "SHA256SUMS").write_text("old")
    (tmp_path / "x.zip").write_bytes(b"content")
    expected = hashlib.sha256(b"content").hexdigest()
    assert release.checksums(tmp_path) == f"{expected}  x.zip\n"


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The package's distributions, built from a copy of what belongs to it."""
    source, folder = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("dist")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    shutil.copytree(ROOT / "pcsnn", source / "pcsnn", ignore=shutil.ignore_patterns("__pycache__"))
    release.package(folder, source)
    return folder


def test_the_site_offers_what_there_is(tmp_path):
    site, page = tmp_path / "site", tmp_path / "site" / "how-to-read.html"
    site.mkdir()
    page.write_text('<p>Read.</p><p id="downloads" hidden></p><p>Run.</p>')
    paths = [tmp_path / name for name in ("the-book.pdf", "notebooks.zip")]
    for path in paths:
        path.write_bytes(path.name.encode())
    release.offer(site, {"the whole book": paths[0]})
    release.offer(site, {"the whole book": paths[0], "the notebooks": paths[1]})
    assert page.read_text() == (
        '<p>Read.</p><p id="downloads">To take along: <a href="downloads/the-book.pdf">the whole '
        'book</a>, <a href="downloads/notebooks.zip">the notebooks</a>.</p><p>Run.</p>'
    )
    assert (site / "downloads" / "notebooks.zip").read_bytes() == b"notebooks.zip"
    page.write_text("<p>Read.</p>")
    with pytest.raises(SystemExit, match="0 places for downloads"):
        release.offer(site, {})


def test_the_wheel_stands_alone(built, tmp_path):
    (wheel,) = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as packed:
        packed.extractall(tmp_path)
    code = (
        "import pcsnn, pcsnn.spiking, pcsnn.experiments, pcsnn.explorers as e; "
        "print(pcsnn.__file__); assert 'svg' in e.lif().to_html()"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120,
        cwd=tmp_path,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip() == str(tmp_path / "pcsnn" / "__init__.py")


def test_the_sdist_has_the_package_and_its_licence(built):
    import tarfile

    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as packed:
        names = {name.split("/", 1)[1] for name in packed.getnames() if "/" in name}
    assert {"LICENSE", "pyproject.toml", "pcsnn/__init__.py", "pcsnn/py.typed"} <= names


def test_without_an_address_no_notebook_fetches_anything():
    assert opening.source({"url": "", "branch": "main"}) == opening.source({}) == ""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1")])
    opening.begin(notebook, "")
    assert len(notebook.cells) == 1


def test_a_notebook_away_from_the_book_fetches_it_and_finds_its_records(tmp_path):
    """On a machine with all that the package needs but the package, and a repository on disk."""
    book = tmp_path / "repository"
    (book / "chapters" / "results").mkdir(parents=True)
    record = "mnist-facts-laptop.json"
    shutil.copy(CHAPTERS / "results" / record, book / "chapters" / "results")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, book)
    shutil.copytree(ROOT / "pcsnn", book / "pcsnn", ignore=shutil.ignore_patterns("__pycache__"))
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@example.org"]
    for command in (["init", "-q", "-b", "trunk"], ["add", "."], ["commit", "-qm", "all"]):
        subprocess.run([*git, *command], check=True, cwd=book)

    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("import pcsnn")])
    address = {"url": book.as_uri(), "branch": "trunk", "path_to_book": "chapters"}
    opening.begin(notebook, opening.source(address))
    assert notebook.cells[0].metadata.tags == ["remove-cell"]
    code = "\n".join(cell.source for cell in notebook.cells) + (
        "\nfrom pcsnn.experiments import load_record\n"
        "print(pcsnn.__file__); print(os.getcwd()); load_record('mnist-facts')"
    )
    target, away = tmp_path / "target", tmp_path / "away"
    away.mkdir()
    libraries = [path for path in sys.path if path.endswith("site-packages")]
    run = subprocess.run(
        [sys.executable, "-S", "-c", code], capture_output=True, text=True, check=False, cwd=away,
        timeout=300,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(target), *libraries]),
             "PIP_TARGET": str(target), "PIP_NO_DEPS": "1", "PIP_NO_BUILD_ISOLATION": "0",
             "PIP_NO_INDEX": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1"},
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    assert run.stdout.split() == [
        str(target / "pcsnn" / "__init__.py"), str(away / "book" / "chapters"),
    ]  # fmt: skip


@pytest.mark.browser
def test_pages_are_bound_with_links_of_their_own(tmp_path):
    if not any(map(shutil.which, release.BROWSERS)):
        missing("no Chromium on this machine: apt-get install chromium")
    from io import BytesIO

    from pypdf import PdfReader

    pages = {
        "one": "<h1>First#</h1><a href='two.html#there'>on</a> <a href='gone.txt'>off</a>"
        "<a href='https://example.org/'>out</a>",
        "two": "<h1>Second</h1><p id='there'>there",
    }
    for name, text in pages.items():
        (tmp_path / f"{name}.html").write_text(f"<!doctype html><meta charset=utf-8>{text}")
    with release.chromium() as browser:
        bound = PdfReader(BytesIO(release.bind(browser, tmp_path, list(pages))))
    assert [entry.title for entry in bound.outline] == ["First", "Second"]
    assert "there" in bound.pages[-1].extract_text()
    links = [link.get_object() for link in bound.pages[0]["/Annots"]]
    inwards = [link for link in links if "/Dest" in link]
    outwards = [link["/A"]["/URI"] for link in links if "/A" in link]
    assert [link["/Dest"][0] for link in inwards] == [bound.pages[1].indirect_reference]
    assert outwards == ["https://example.org/"]
