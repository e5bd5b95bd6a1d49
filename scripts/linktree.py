#!/usr/bin/env python3
"""Lay the package folders out as they are installed, as symbolic links: build/tree/rnncore/{export,runtime,...}.

The folders ``rnncore/``, ``export/`` and ``runtime/`` are the packages ``rnncore``, ``rnncore.export`` and
``rnncore.runtime``.  Python's import system knows that from the installation, but mypy and import-linter find modules
by walking folders.  They are run inside this tree.

    python scripts/linktree.py [FOLDER]      prints the folder, build/tree unless told otherwise
"""

from __future__ import annotations

import contextlib
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def wanted_links() -> dict[Path, Path]:
    """Map each link, relative to the tree, to the file or folder that it shows."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    folders: dict[str, str] = project["tool"]["setuptools"]["package-dir"]
    links: dict[Path, Path] = {}
    for package, folder in folders.items():
        if "." in package:
            links[Path(*package.split("."))] = ROOT / folder
        else:  # a top-level package is a real folder, for the others to be put in
            children = sorted((ROOT / folder).iterdir())
            links |= {Path(package, child.name): child for child in children if child.name != "__pycache__"}
    return links


def lay(tree: Path) -> None:
    """Make the links of ``tree`` those that are wanted; safe to run twice, and twice at the same time."""
    links = {tree / link: target for link, target in wanted_links().items()}
    for folder in {link.parent for link in links}:
        folder.mkdir(parents=True, exist_ok=True)
        for old in folder.iterdir():
            if old.is_symlink() and (old not in links or old.readlink() != links[old]):
                old.unlink(missing_ok=True)
    for link, target in links.items():
        with contextlib.suppress(FileExistsError):
            link.symlink_to(target, target_is_directory=target.is_dir())


if __name__ == "__main__":
    tree = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "build" / "tree"
    lay(tree)
    print(tree)
