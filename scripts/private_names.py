#!/usr/bin/env python3
"""No module reads a private name of another one: lists each place where one does, and fails if there is any.

    python scripts/private_names.py [FOLDER]      looks into rnncore/, export/ and runtime/ of the folder, here by default

A name with one leading underscore belongs to the module that defines it.  Private names of other projects (``torch._ops``)
are their business: only names that some module of ours defines count.  ``self._name`` and ``cls._name`` are always right.
"""

from __future__ import annotations

import ast
import sys
from pathlib import Path

FOLDERS = ("rnncore", "export", "runtime")


def private(name: str) -> bool:
    """True for ``_name``, not for ``__name__``."""
    return name.startswith("_") and not name.startswith("__")


def own(node: ast.Attribute) -> bool:
    """True for an attribute of ``self`` or ``cls``."""
    return isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")


def defined(tree: ast.Module) -> set[str]:
    """Private names that a module defines: functions, classes, variables, attributes of ``self``, slots."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.Attribute) and own(node) and isinstance(node.ctx, ast.Store):
            names.add(node.attr)
        elif isinstance(node, ast.Assign) and any(
            isinstance(t, ast.Name) and t.id == "__slots__" for t in node.targets
        ):
            names |= {str(item.value) for item in ast.walk(node.value) if isinstance(item, ast.Constant)}
    return {name for name in names if private(name)}


def read(tree: ast.Module) -> list[tuple[int, str]]:
    """Private names that a module reads from something else than ``self``, each with its line."""
    foreign = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and private(node.attr) and not own(node):
            if isinstance(node.value, ast.Name) and node.value.id in foreign:
                continue  # sys._getframe
            found.append((node.lineno, node.attr))
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("rnncore"):
            found += [(node.lineno, alias.name) for alias in node.names if private(alias.name)]
    return found


def main(root: Path) -> int:
    """Print every place; the exit status."""
    files = sorted(file for folder in FOLDERS for file in (root / folder).rglob("*.py"))
    trees = {file: ast.parse(file.read_text(encoding="utf-8")) for file in files}
    homes = {file: defined(tree) for file, tree in trees.items()}
    ours = set().union(*homes.values())
    bad = [
        f"{file.relative_to(root)}:{line}: reads {name}, which is private to another module"
        for file, tree in trees.items()
        for line, name in read(tree)
        if name in ours - homes[file]
    ]
    print("\n".join(bad) if bad else f"{len(files)} files, no private name of another module is read")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parent.parent))
