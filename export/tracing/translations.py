"""What torch's exporter reads anew at every call, kept between calls of ours."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from types import SimpleNamespace
from typing import Any

_REGISTRATION = "torch.onnx._internal.exporter._registration"


@contextmanager
def operators_read_once() -> Iterator[None]:
    """Inside it torch takes the translations of its operators from a list that this process made once.

    torch parses the Python source of five hundred functions at every export, which takes it a second, and takes from each only
    the name of its domain.  A torch without that list, or with another one, is left alone.
    """
    try:
        registration: Any = import_module(_REGISTRATION)
        read = registration.onnxscript_apis.get_torchlib_ops
    except (ImportError, AttributeError):
        yield
        return
    if isinstance(registration.onnxscript_apis, SimpleNamespace):  # an export inside an export, or in another thread
        yield
        return
    original = registration.onnxscript_apis
    registration.onnxscript_apis = SimpleNamespace(get_torchlib_ops=_kept(read))
    try:
        yield
    finally:
        registration.onnxscript_apis = original


@functools.cache
def _kept(read: Any) -> Any:
    return functools.cache(read)
