"""The metadata of a model file as one JSON document, for hosts that do not hold the file's bytes.

What is in it, and how a host reads it, says docs/format.md.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NoReturn

from rnncore.runtime.format.signature import PREFIX

DOCUMENT_VERSION = 1


def document_of(metadata: Mapping[str, str]) -> dict[str, Any]:
    """Every ``rnncore.NAME`` of ``metadata`` as NAME: JSON objects and lists as such, all other texts as they are."""
    entries = {key.removeprefix(PREFIX): value for key, value in metadata.items() if key.startswith(PREFIX)}
    return {"document_version": DOCUMENT_VERSION, **{name: _value(text) for name, text in sorted(entries.items())}}


def _value(text: str) -> Any:
    if not text.startswith(("{", "[")):
        return text
    try:
        return json.loads(text, parse_constant=_refuse)
    except ValueError:
        return text


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON, though Python writes it")
