"""What the theme gets wrong for a book that must work offline, set right page by page."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.config import Config

import pcsnn

from .katex import ROOT

FONTS = ROOT / "node_modules" / "@fontsource" / "source-serif-4" / "files"


def offer_repository(app: Sphinx, config: Config) -> None:
    """Buttons to the source, Colab and Binder where the book has an address, else none."""
    options = config.html_theme_options
    options["use_repository_button"] = bool(options.get("repository_url"))
    if not options["use_repository_button"]:
        for name in ("repository_url", "launch_buttons"):
            options.pop(name, None)


def drop_live_code(
    app: Sphinx, page: str, template: str, context: dict[str, Any], document: nodes.document | None
) -> None:
    """Thebe loads its parts from another host; the notebooks are for running."""
    context["script_files"] = [
        script for script in context["script_files"] if "thebe" not in repr(vars(script)).lower()
    ]


def drop_live_code_settings(app: Sphinx, document: nodes.document, docname: str) -> None:
    for raw in list(document.findall(nodes.raw)):
        if "thebe" in raw.astext():
            raw.parent.remove(raw)


def resolve_short_name(app: Sphinx, env: Any, node: nodes.Element, text: nodes.Node) -> Any:
    """``pcsnn.Backprop`` is documented where it is written: as ``pcsnn.backprop.Backprop``.

    What a package hands on is documented there, ``pcsnn.mlp`` as ``pcsnn.networks.mlp``.
    """
    package, _, name = node["reftarget"].partition(".")
    found = getattr(pcsnn, name, None) if package == "pcsnn" else None
    if node.get("refdomain") != "py" or not hasattr(found, "__qualname__"):
        return None
    domain, refdoc, role = env.get_domain("py"), node["refdoc"], node["reftype"]
    for home in (found.__module__, found.__module__.rpartition(".")[0]):
        target = f"{home}.{found.__qualname__}"
        if link := domain.resolve_xref(env, refdoc, app.builder, role, target, node, text):
            return link
    return None


def copy_fonts(app: Sphinx, error: Exception | None) -> None:
    """The text's fonts, from ``node_modules``; ``book.css`` names them."""
    if error or app.builder.format != "html":
        return
    target = Path(app.outdir) / "_static" / "fonts"
    target.mkdir(parents=True, exist_ok=True)
    for cut in ("400-normal", "400-italic", "600-normal"):
        shutil.copy(FONTS / f"source-serif-4-latin-{cut}.woff2", target)


def setup(app: Sphinx) -> None:
    app.connect("config-inited", offer_repository, priority=900)
    app.connect("html-page-context", drop_live_code, priority=900)
    app.connect("missing-reference", resolve_short_name)
    app.connect("build-finished", copy_fonts)
    app.connect("doctree-resolved", drop_live_code_settings, priority=900)
