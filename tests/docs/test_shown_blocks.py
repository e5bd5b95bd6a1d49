"""What pages only show, since it needs data or programs of others, still names what there is: functions, options, commands."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import shlex
from collections.abc import Iterator
from typing import Any

import typer.main

import rnncore
from rnncore.cli.app import app
from tests.docs.test_pages import DOCS, ROOT

TEXTS = {
    path: path.read_text(encoding="utf-8") for path in (ROOT / "README.md", ROOT / "PACKAGE.md", *DOCS.rglob("*.md"))
}
SHOWN = re.compile(r"^```py\n(.*?)^```", re.DOTALL | re.MULTILINE)
SHELL = re.compile(r"^```(?:sh|bash)\n(.*?)^```", re.DOTALL | re.MULTILINE)
INLINE = re.compile(r"`(rnncore [a-z][^`]*)`")
MODULES = ("models", "text", "training", "export", "runtime", "ray")
PLOTS = ("embedding_map", "spoken")


def public() -> dict[str, Any]:
    """Every public name, as pages use them without saying where they come from."""
    found: dict[str, Any] = {"rnncore": rnncore, "runtime": importlib.import_module("rnncore.runtime")}
    for module in (rnncore, *(importlib.import_module(f"rnncore.{name}") for name in MODULES)):
        found = {name: getattr(module, name) for name in module.__all__} | found  # a bare Rater is PyTorch's
    for plot in PLOTS:
        found[f"plot_{plot}"] = getattr(importlib.import_module(f"rnncore.plots.{plot}"), f"plot_{plot}")
    return found


def resolved(node: ast.expr, names: dict[str, Any]) -> Any:
    """The object that a name, or a chain of attributes, stands for; None if it is not one of ours.  KeyError: ours lacks it."""
    if isinstance(node, ast.Name):
        return names.get(node.id)
    if not isinstance(node, ast.Attribute):
        return None
    owner = resolved(node.value, names)
    if not (inspect.ismodule(owner) or inspect.isclass(owner)):
        return None
    if inspect.ismodule(owner) and not hasattr(owner, node.attr):
        importlib.import_module(f"{owner.__name__}.{node.attr}")
    return getattr(owner, node.attr)


def wrong_calls(code: str, names: dict[str, Any]) -> Iterator[str]:
    """Names of ours that do not exist, and arguments by name that they do not take."""
    for node in ast.walk(ast.parse(code)):
        try:
            if isinstance(node, ast.Attribute):
                resolved(node, names)
            called = resolved(node.func, names) if isinstance(node, ast.Call) else None
        except (AttributeError, ImportError) as error:
            yield str(error)
            continue
        if not isinstance(node, ast.Call) or called is None or not callable(called):
            continue
        taken = inspect.signature(called).parameters
        if any(one.kind is one.VAR_KEYWORD for one in taken.values()):
            continue
        yield from (f"{called.__name__} takes no {k.arg}" for k in node.keywords if k.arg and k.arg not in taken)


def wrong_options(line: str) -> list[str]:
    """What of a command line of ours is no command or no option of it."""
    words = shlex.split(line, comments=True)[1:]
    command: Any = typer.main.get_command(app)
    while words and words[0] in getattr(command, "commands", {}):
        command = command.commands[words.pop(0)]
    known = {option for one in command.params for option in (*one.opts, *one.secondary_opts)} | {"-h", "--help"}
    wrong = [word for word in words if word.startswith("--") and word.split("=")[0] not in known]
    return wrong if not hasattr(command, "commands") or not words or words[0].startswith("-") else [words[0]]


def test_shown_python_names_what_there_is() -> None:
    names = public()
    blocks = [(path.name, code) for path, text in TEXTS.items() for code in SHOWN.findall(text)]
    assert len(blocks) > 15
    assert [(page, wrong) for page, code in blocks for wrong in wrong_calls(code, names)] == []
    faults = "rnncore.runtime.loaad(1); runtime.load('x', treads=2); Tagger(config, labels, crff=True)"
    assert len(list(wrong_calls(faults, names))) >= 3


def test_commands_on_pages_take_what_pages_give_them() -> None:
    lines = [(path.name, line) for path, text in TEXTS.items() for line in INLINE.findall(text)]
    lines += [
        (path.name, line)
        for path, text in TEXTS.items()
        for block in SHELL.findall(text)
        for line in block.replace("\\\n", " ").splitlines()
        if line.startswith("rnncore ")
    ]
    assert len(lines) > 25
    assert [(page, line, wrong) for page, line in lines for wrong in wrong_options(line)] == []
    assert wrong_options("rnncore score m.onnx text --totall") == ["--totall"]
    assert wrong_options("rnncore scroe m.onnx") == ["scroe"]
    assert wrong_options("rnncore plot gates m.pt --units 3") == []
