"""``rnncore export``: a module of somebody's own file, with its weights, as one ONNX file."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rnncore.cli.console import reports_errors
from rnncore.runtime.errors import InputError

if TYPE_CHECKING:
    from torch import nn


@reports_errors
def export(
    source: Annotated[str, typer.Argument(help="Where the module is: model.py:Tagger or package.module:Tagger.")],
    example: Annotated[
        list[str],
        typer.Option(
            help="One input of forward, in order or by name: float32[1,20,40], ids=int64[1,10]<5000, or a .npy file. "
            "Sizes are not baked in."
        ),
    ],
    out: Annotated[Path, typer.Option(help="File to write.")] = Path("model.onnx"),
    weights: Annotated[Path | None, typer.Option(help="State dict: .pt, .pth or .safetensors.")] = None,
    arguments: Annotated[str, typer.Option(help='Arguments of the class as JSON, such as {"hidden": 64}.')] = "{}",
    form: Annotated[str, typer.Option(help="loop, scan, fused, portable or auto.")] = "loop",
    target: Annotated[
        str | None,
        typer.Option(
            help="With --form auto: the program that shall run the file: onnxruntime, openvino, tract or portable.  "
            "[default: onnxruntime]",
            show_default=False,
        ),
    ] = None,
    branches: Annotated[
        bool, typer.Option(help="A layer may stand there once for each way of calling; without, it is one plain loop.")
    ] = True,
    quantize: Annotated[str | None, typer.Option(help="int8, or nothing for full precision.")] = None,
    streaming: Annotated[
        str, typer.Option(help="auto: stream if that is proved; yes: an error if it cannot; no: batch only.")
    ] = "auto",
    seed: Annotated[int, typer.Option(help="Of the random inputs of verification.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Export a PyTorch module, verified; runs the file that holds its class."""
    from rnncore.cli.example_inputs import read_example
    from rnncore.export import export as export_module

    choices = {"auto": "auto", "yes": True, "no": False}
    if streaming not in choices:
        raise InputError(f"--streaming is {streaming!r}, expected auto, yes or no")
    module = _instance(source, arguments)
    if weights is not None:
        _load_weights(module, weights)
    report = export_module(
        module,
        out,
        read_example(example, seed),
        form=form,  # type: ignore[arg-type]  # checked by export
        target=target,  # type: ignore[arg-type]
        quantize=quantize,  # type: ignore[arg-type]
        streaming=choices[streaming],  # type: ignore[arg-type]
        seed=seed,
        branches=branches,
    )
    typer.echo(report.to_json() if as_json else str(report))


def _instance(source: str, arguments: str) -> nn.Module:
    """The module that ``source`` names: an object, or what its class or function makes of ``arguments``."""
    from torch import nn

    place, _, name = source.rpartition(":")
    if not place or not name.isidentifier():
        raise InputError(f"the source is {source!r}, expected FILE.py:NAME or package.module:NAME")
    found = getattr(_imported(place), name, None)
    if found is None:
        raise InputError(f"{place} has no {name}")
    if isinstance(found, nn.Module):
        return found
    try:
        given = json.loads(arguments)
    except ValueError as error:
        raise InputError(f"--arguments is no JSON: {error}") from None
    if not isinstance(given, dict) or not callable(found):
        raise InputError(f"{name} is a {type(found).__name__}, expected a class; --arguments a JSON object")
    try:
        made = found(**given)
    except Exception as error:
        raise InputError(f"{name}(**{arguments}) fails: {type(error).__name__}: {error}; see --arguments") from error
    if not isinstance(made, nn.Module):
        raise InputError(f"{name} makes a {type(made).__name__}, expected a torch.nn.Module")
    return made


def _imported(place: str) -> Any:
    path = Path(place)
    try:
        if path.suffix != ".py":
            sys.path.insert(0, "")
            return importlib.import_module(place)
        if not path.is_file():
            raise InputError(f"{place} does not exist")
        sys.path.insert(0, str(path.parent.resolve()))  # what lies beside the file may be imported by it
        # Somebody may call a file as a module is called that is in use here: signal.py, test.py.
        name = path.stem if path.stem not in sys.modules else f"exported_{path.stem}"
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
        return module
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"{place} cannot be imported: {type(error).__name__}: {error}") from error


def _load_weights(module: nn.Module, path: Path) -> None:
    import torch

    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            weights = load_file(path)
        else:
            weights = torch.load(path, map_location="cpu", weights_only=True)
    except ImportError:
        raise InputError(f"{path} needs the package safetensors: pip install safetensors") from None
    except OSError:
        raise
    except Exception as error:
        raise InputError(f"{path} is no state dict of plain tensors: {str(error).splitlines()[0]}") from error
    inner = weights.get("state_dict", weights) if isinstance(weights, dict) else None
    if not isinstance(inner, dict):
        raise InputError(f"{path} holds a {type(weights).__name__}, expected a state dict")
    try:
        module.load_state_dict(inner)
    except (RuntimeError, TypeError) as error:
        lines = str(error).strip().splitlines()[:6]
        raise InputError(f"{path} does not fit {type(module).__name__}:\n" + "\n".join(lines)) from None
