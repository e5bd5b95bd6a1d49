#!/usr/bin/env python3
"""Only public entry points take more than six parameters: lists each other function that does, and fails if there is any.

    python scripts/parameters.py [FOLDER]      looks into rnncore/, export/ and runtime/ of the folder, here by default

Public are the names in ``__all__`` of a package, the methods of such a class, and the commands, whose parameters are the
options of the command line.  ``self`` and ``cls`` are not counted, nor is the ``forward`` of a ``torch.autograd.Function``,
for which torch wants one parameter a tensor.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

FOLDERS = ("rnncore", "export", "runtime")
MOST = 6

Function = ast.FunctionDef | ast.AsyncFunctionDef


def public_names(tree: ast.Module) -> set[str]:
    """What ``__all__`` of a package lists."""
    for node in tree.body:
        if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == "__all__" for t in node.targets):
            return {str(item.value) for item in ast.walk(node.value) if isinstance(item, ast.Constant)}
    return set()


def parameters(function: Function) -> list[ast.arg]:
    """All that a caller may hand in."""
    args = function.args
    found = [*args.posonlyargs, *args.args, *args.kwonlyargs, *filter(None, (args.vararg, args.kwarg))]
    return found[1:] if found and found[0].arg in ("self", "cls") else found


def is_command(function: Function) -> bool:
    """Whether the parameters are those of a command line: each says how it is spelled there."""
    return any(arg.annotation and "typer." in ast.unparse(arg.annotation) for arg in parameters(function))


def functions(tree: ast.Module) -> Iterator[tuple[Function, list[ast.AST]]]:
    """Every function with the classes and functions around it, from outside to inside."""
    waiting: list[tuple[ast.AST, list[ast.AST]]] = [(tree, [])]
    while waiting:
        node, around = waiting.pop()
        if isinstance(node, Function):
            yield node, around
        inside = [*around, node] if isinstance(node, Function | ast.ClassDef) else around
        waiting += [(child, inside) for child in ast.iter_child_nodes(node)]


def may_be_long(function: Function, around: list[ast.AST], public: set[str]) -> bool:
    """Whether the number of parameters is not ours to choose, or is a matter of the public interface."""
    if is_command(function):
        return True
    if not around:
        return function.name in public
    owner = around[-1]
    if not isinstance(owner, ast.ClassDef) or len(around) > 1:
        return False
    if any(ast.unparse(base).endswith("autograd.Function") for base in owner.bases):
        return function.name == "forward"
    return owner.name in public and (function.name == "__init__" or not function.name.startswith("_"))


def main(root: Path) -> int:
    """Print every place; the exit status."""
    files = sorted(file for folder in FOLDERS for file in (root / folder).rglob("*.py"))
    trees = {file: ast.parse(file.read_text(encoding="utf-8")) for file in files}
    public = set().union(*(public_names(tree) for file, tree in trees.items() if file.name == "__init__.py"))
    bad = [
        f"{file.relative_to(root)}:{function.lineno}: {function.name} has {len(parameters(function))} parameters, expected at "
        f"most {MOST}: put those that belong together into a dataclass"
        for file, tree in trees.items()
        for function, around in functions(tree)
        if len(parameters(function)) > MOST and not may_be_long(function, around, public)
    ]
    print("\n".join(bad) if bad else f"{len(files)} files, only public entry points take more than {MOST} parameters")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parent.parent))
