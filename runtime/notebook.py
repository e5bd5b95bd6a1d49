"""What a model or a report shows of itself in a notebook."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

from rnncore.runtime.format.signature import Signature
from rnncore.runtime.tensors.ports import ports_of

_ROW = "<tr>{}</tr>"
_CELL = '<td style="text-align:left">{}</td>'
_HEAD = '<th style="text-align:left">{}</th>'
_MOST = 300  # characters of one cell: a file says of itself what it likes


def shown(title: str, facts: Mapping[str, object], signature: Signature) -> str:
    """HTML: a title, facts one below the other, and the inputs, states and outputs with dtype and shape.

    Everything is escaped: a file's names are not trusted.
    """
    told = _table([], [(name, value) for name, value in facts.items()])
    ports = _table(["", "name", "dtype", "shape"], [port[:4] for port in ports_of(signature)])
    return f"<div><b>{_text(title)}</b>{told}{ports}</div>"


def _table(head: Sequence[str], rows: Sequence[tuple[object, ...]]) -> str:
    lines = [_ROW.format("".join(_HEAD.format(_text(name)) for name in head))] if head else []
    lines += [_ROW.format("".join(_CELL.format(_text(cell)) for cell in row)) for row in rows]
    return f"<table>{''.join(lines)}</table>"


def _text(value: object) -> str:
    text = str(value)
    return escape(text if len(text) <= _MOST else f"{text[:_MOST]} ...")
