"""When a chapter must be executed again: what its code imports, and the records that it names."""

from __future__ import annotations

import pytest

from tools import execute
from tools.closure import Package, code_cells

TOY = {
    "__init__.py": "from pcsnn.a import f\nfrom pcsnn.b import g as h\n__version__ = '1'\n",
    "a.py": "from pcsnn import deep\ndef f(): return deep.x()\n",
    "b.py": "def g(): pass\ndef h(): pass\n",
    "deep.py": "def x(): from .sub import inner; return inner.y\n",
    "lonely.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING: from pcsnn import b\n",
    "sub/__init__.py": "from pcsnn.sub.inner import y\nfrom pcsnn.sub.other import z\n",
    "sub/inner.py": "y = 1\n",
    "sub/other.py": "z = 1\n",
    "drawn/__init__.py": "from .page import show\n",
    "drawn/page.py": "show = None\n",
    "drawn/page.js": "",
    "drawn/page.css": "",
}
DRAWN = "drawn/page.py drawn/page.js drawn/page.css"
WHOLE = " ".join(TOY)


@pytest.fixture
def book(tmp_path, monkeypatch):
    """A package and an empty chapter."""
    monkeypatch.setattr(execute, "ROOT", tmp_path)
    monkeypatch.setattr(execute, "CHAPTERS", tmp_path / "chapters")
    for name, source in TOY.items():
        path = tmp_path / "pcsnn" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source)
    (tmp_path / "chapters" / "results").mkdir(parents=True)
    return tmp_path


def chapter(book, code):
    text = book / "chapters" / "a.md"
    text.write_text(f"---\nkernelspec: {{}}\n---\n\n```{{code-cell}} ipython3\n{code}\n```\n")
    return text


def makes_stale(book, text, path, edit=lambda source: source + "# edited\n"):
    old, before = execute.inputs_hash(text), path.read_text()
    path.write_text(edit(before))
    new = execute.inputs_hash(text)
    path.write_text(before)
    return new != old


@pytest.mark.parametrize(
    ("code", "files"),
    [
        ("import numpy", ""),
        ("from pcsnn import b", "b.py"),
        ("import pcsnn.b as c", "b.py"),
        ("import pcsnn.b\npcsnn.f", "b.py a.py deep.py sub/inner.py"),
        ("import pcsnn\npcsnn.h()", "b.py"),
        ("from pcsnn import f", "a.py deep.py sub/inner.py"),
        ("import pcsnn\npcsnn.sub.z", "sub/other.py"),
        ("import pcsnn as p\np.sub.inner.y.shape", "sub/inner.py"),
        ("def later():\n    from pcsnn.sub import z", "sub/other.py"),
        ("from pcsnn import sub\nsub.z", "sub/other.py"),
        ("from pcsnn import sub\nprint(sub)", "sub/__init__.py sub/inner.py sub/other.py"),
        ("from pcsnn import lonely", "lonely.py"),
        (
            "def one():\n    import pcsnn.b as c\n    c.g\n"
            "def two():\n    import pcsnn.lonely as c\n    c.h",
            "b.py lonely.py",
        ),
        ("from pcsnn import drawn\ndrawn.show()", DRAWN),
        ("import pcsnn\npcsnn.__version__", "__init__.py a.py b.py deep.py sub/inner.py"),
        # what cannot be followed takes all there is
        ("import pcsnn\nvars(pcsnn)", WHOLE),
        ("from pcsnn import *", WHOLE),
        ("import pcsnn\npcsnn.nothing_of_that_name", WHOLE),
        ("%load_ext x", WHOLE),
    ],
)
def test_a_chapter_is_stale_only_by_what_it_imports(book, code, files):
    text = chapter(book, code)
    stale = {name for name in TOY if makes_stale(book, text, book / "pcsnn" / name)}
    assert stale == set(files.split())


def test_a_new_import_extends_what_makes_a_chapter_stale(book):
    text, lonely = chapter(book, "from pcsnn import b"), book / "pcsnn" / "lonely.py"
    assert not makes_stale(book, text, lonely)
    (book / "pcsnn" / "b.py").write_text("from . import lonely\n")
    assert makes_stale(book, text, lonely)


def test_a_name_that_is_handed_on_from_elsewhere_makes_a_chapter_stale(book):
    text, init = chapter(book, "import pcsnn\npcsnn.h()"), book / "pcsnn" / "__init__.py"
    assert makes_stale(book, text, init, lambda source: source.replace("g as h", "h"))
    assert not makes_stale(book, text, init, lambda source: source.replace("import f", "import g"))


def test_packages_that_hand_a_name_to_each_other_come_to_an_end(book):
    (book / "pcsnn" / "sub" / "__init__.py").write_text("from pcsnn import w\n")
    (book / "pcsnn" / "__init__.py").write_text("from pcsnn.sub import w\n")
    text = chapter(book, "from pcsnn import w")
    assert makes_stale(book, text, book / "pcsnn" / "lonely.py")


def test_a_record_that_the_text_names_makes_it_stale(book):
    records = [book / "chapters" / "results" / f"{name}.json" for name in ("x-laptop", "y")]
    for path in records:
        path.write_text("before")
    for code, sees in (('load_record("x")', [True, False]), ('report("y")', [False, True])):
        text = chapter(book, code)
        assert [makes_stale(book, text, path) for path in records] == sees


def test_code_is_taken_from_cells_alone_and_without_their_options():
    text = """
import pcsnn.prose
```{code-cell} ipython3
:tags: [hide-input]

a = 1
```
```python
import pcsnn.shown
```
````{code-cell} ipython3
---
tags: [hide-input]
---
b = '''
```
'''
````
"""
    space = {}
    exec(code_cells(text), space)
    assert (space["a"], space["b"]) == (1, "\n```\n")
    assert "pcsnn" not in code_cells(text)


def test_the_book_s_own_chapters_are_read_to_the_end():
    package = Package(execute.ROOT / "pcsnn")
    sizes = [len(package.closure(code_cells(t.read_text()))[0]) for t in execute.chapters()]
    assert min(sizes) >= 1
    assert max(sizes) < len([*(execute.ROOT / "pcsnn").rglob("*.py")])  # none takes all


def test_a_new_address_makes_every_chapter_stale(book, monkeypatch):
    text = chapter(book, "import numpy")
    before = execute.inputs_hash(text)
    monkeypatch.setattr(execute.opening, "configured", lambda: "import fetched")
    assert execute.inputs_hash(text) != before
