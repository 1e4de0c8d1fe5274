"""Execute the chapters: ``chapters/NAME.md`` (text, what people edit) to its twin ``NAME.ipynb``.

    python tools/execute.py [CHAPTER.md ...]     run the stale ones, or those named
    python tools/execute.py --all                run every chapter
    python tools/execute.py --check              say which twins are stale, run nothing

A twin is stale when the text, what its code imports of the package or a record that the text
names has changed since it was executed; the hashes are in its metadata. Running a chapter again
gives the same bytes: cell ids are counted, and nothing in an output may depend on the time or the
machine. An error, or anything written to stderr, fails the chapter and leaves its twin as it was.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from tools import opening  # noqa: E402
from tools.closure import Package, code_cells  # noqa: E402

CHAPTERS = ROOT / "chapters"
LANGUAGE = {"name": "python", "file_extension": ".py", "mimetype": "text/x-python"}
# what may differ from run to run, and so may not be stored
UNSTABLE = (
    (
        re.compile(r"(?<![\w.])/(?:home|root|tmp|work|usr|opt|mnt|Users)/[\w./-]+"),
        "an absolute path",
    ),
    (re.compile(r"(?<!\w)0x[0-9a-f]{6,}"), "a memory address"),
    (re.compile(r"\d+%\|.*\|"), "a progress bar"),
)
COLOURS = re.compile(r"\x1b\[[\d;]*m")


class ChapterError(RuntimeError):
    """A chapter that cannot be stored as it ran."""


def is_notebook(text: Path) -> bool:
    """Whether a page holds code: its first lines name a kernel."""
    head = text.read_text(encoding="utf-8").split("\n---", 1)[0]
    return head.startswith("---") and "kernelspec" in head


def chapters() -> list[Path]:
    return [path for path in sorted(CHAPTERS.glob("*.md")) if is_notebook(path)]


def text_hash(text: Path) -> str:
    return hashlib.sha256(text.read_bytes()).hexdigest()[:16]


def inputs_hash(text: Path, package: Package | None = None) -> str:
    """Of what a chapter reads: the sources that its code imports, and the records that it names.

    Args:
        text: of the chapter.
        package: the sources as they are; read anew if they are not given.
    """
    code = text.read_text(encoding="utf-8")
    sources, handed_on = (package or Package(ROOT / "pcsnn")).closure(code_cells(code))
    named = [path for path in sorted((CHAPTERS / "results").glob("*.json")) if _names(code, path)]
    total = hashlib.sha256("\n".join(handed_on).encode() + opening.configured().encode())
    for path in [*sources, *named]:
        total.update(path.relative_to(ROOT).as_posix().encode() + b"\0" + path.read_bytes())
    return total.hexdigest()[:16]


def _names(code: str, record: Path) -> bool:
    """Whether a text names a record's file, or the experiment: the file without the scale."""
    return any(f'"{name}"' in code for name in (record.stem, record.stem.rpartition("-")[0]))


def staleness(text: Path, inputs: str) -> str:
    """Why a chapter must be executed again; empty where it need not."""
    twin = text.with_suffix(".ipynb")
    if not twin.exists():
        return "never executed"
    stored = json.loads(twin.read_text(encoding="utf-8"))["metadata"].get("executed", {})
    if stored.get("text") != text_hash(text):
        return "the text has changed"
    return "" if stored.get("inputs") == inputs else "the package or a record has changed"


def run(text: Path, inputs: str) -> str:
    """Execute one chapter and write its twin; returns what went wrong, or nothing."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ |= {"TQDM_DISABLE": "1", "PYTHONHASHSEED": "0"}
    os.environ["PYDEVD_DISABLE_FILE_VALIDATION"] = "1"
    try:
        notebook = _execute(text)
    except Exception as error:
        return f"{text.name}: {error}"
    executed = {"text": text_hash(text), "inputs": inputs}
    notebook["metadata"] = {
        "executed": executed,
        "kernelspec": notebook["metadata"]["kernelspec"],
        "language_info": LANGUAGE,
    }
    content = json.dumps(notebook, ensure_ascii=False, indent=1, sort_keys=True) + "\n"
    twin = text.with_suffix(".ipynb")
    part = twin.with_suffix(".part")
    part.write_text(content, encoding="utf-8")
    part.replace(twin)
    return ""


def _execute(text: Path) -> Any:
    import jupytext
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError

    notebook = jupytext.read(text)
    client = NotebookClient(
        notebook,
        timeout=600,
        kernel_name="python3",
        resources={"metadata": {"path": str(text.parent)}},
        record_timing=False,
    )
    try:
        client.execute(stderr=subprocess.DEVNULL)  # the kernel's own remarks, not the cells'
    except CellExecutionError as error:
        raise ChapterError(COLOURS.sub("", str(error)).strip()) from None
    opening.begin(notebook, opening.configured())
    for number, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{number}"
        cell["metadata"].pop("execution", None)
        if cell.cell_type == "code":
            cell["outputs"] = _merge(cell.outputs)
            for found in map(fault, cell.outputs):
                if found:
                    code = "\n    ".join(cell.source.splitlines())
                    raise ChapterError(f"cell {number} {found}, after\n    {code}")
    return notebook


def _merge(outputs: list[Any]) -> list[Any]:
    """Join the pieces of one stream, whose boundaries differ from run to run."""
    merged: list[Any] = []
    for output in outputs:
        last = merged[-1] if merged else {}
        if output.output_type == "stream" and last.get("name") == output.name:
            last["text"] += output.text
        else:
            merged.append(output)
    return merged


def fault(output: Any) -> str:
    """Why an output may not be stored, or nothing."""
    if output.get("name") == "stderr":
        return f"writes to stderr: {''.join(output['text']).strip()}"
    data = {kind: text for kind, text in output.get("data", {}).items() if "image" not in kind}
    shown = "".join(map(_text, [output.get("text", ""), *data.values()]))
    for pattern, what in UNSTABLE:
        found = pattern.search(shown)
        if found:
            return f"shows {what}: {found[0]}"
    return ""


def _text(data: Any) -> str:
    return "".join(data) if isinstance(data, str | list) else json.dumps(data)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument(
        "chapters", nargs="*", type=Path, help="chapters to run; else the stale ones"
    )
    parser.add_argument("--all", action="store_true", help="run every chapter")
    parser.add_argument("--check", action="store_true", help="only say which twins are stale")
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args()
    package = Package(ROOT / "pcsnn")
    stale = {text: staleness(text, inputs_hash(text, package)) for text in chapters()}
    if options.check:
        found = [f"{text.name}: {why}" for text, why in stale.items() if why]
        print(
            "\n".join(found) or "every twin is in step with its text, the package and the records"
        )
        return bool(found)
    todo = [path.resolve() for path in options.chapters]
    todo = todo or [text for text, why in stale.items() if why or options.all]
    with ProcessPoolExecutor(options.jobs) as pool:
        faults = []
        inputs = [inputs_hash(text, package) for text in todo]  # before any of them runs
        for text, fault in zip(todo, pool.map(run, todo, inputs), strict=True):
            print(fault or f"{text.name}: executed", flush=True)
            faults += [fault] if fault else []
    if not todo:
        print("nothing to execute: every twin is in step")
    return bool(faults)


if __name__ == "__main__":
    sys.exit(main())
