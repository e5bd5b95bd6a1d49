"""``rnncore quantize``: the int8 twin of a float32 file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rnncore.cli.console import AsJson, reports_errors, tell, text_argument
from rnncore.runtime.errors import InputError

if TYPE_CHECKING:
    from rnncore.runtime.model import Model


@reports_errors
def quantize(
    model: Annotated[
        Path, typer.Argument(help="A float32 file that rnncore exported, of form loop, scan or portable.")
    ],
    out: Annotated[Path, typer.Option(help="The file to write.")],
    data: Annotated[
        list[Path] | None,
        typer.Option(help="A .npy or .npz file with one call of the model, to say what int8 costs; may be repeated."),
    ] = None,
    text: Annotated[
        str | None, typer.Option(help="The same for a model of text; - reads standard input.", show_default=False)
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write an int8 file of a quarter of the size, held to the golden answers, with what it costs on data of yours.

    Needs neither the PyTorch module nor its weights.
    """
    from rnncore.export import quantize as quantize_file
    from rnncore.runtime.model import load

    calls: list[Any] = [_call(path) for path in data or ()]
    if text is not None:
        calls += _calls_of_text(load(model), text_argument(text))
    report = quantize_file(model, out, accuracy_data=calls or None)
    told = {
        "path": str(report.path),
        "size_bytes": report.size_bytes,
        "size_bytes_before": report.size_bytes_before,
        "quantized": report.quantized,
        "worst_rms": report.worst_rms,
        "accuracy": None if report.accuracy is None else report.accuracy.to_dict(),
    }
    tell(str(report), told, as_json)


def _call(path: Path) -> Any:
    import numpy as np

    try:
        found = np.load(path, allow_pickle=False)
        return found if isinstance(found, np.ndarray) else dict(found)
    except (ValueError, TypeError, EOFError) as error:
        raise InputError(f"{path} cannot be read as an array: {error}") from None


def _calls_of_text(model: Model, text: str) -> list[Any]:
    """The text as the model reads it, line by line."""
    import numpy as np

    from rnncore.runtime.text.language_model import TOKENIZER_KEY
    from rnncore.runtime.text.vocabulary import Vocabulary

    tokenizer = model.metadata.get(TOKENIZER_KEY)
    if tokenizer is None:
        raise InputError("the file has no tokenizer, so it reads no text: hand in arrays by --data")
    vocabulary = Vocabulary.from_json(tokenizer)
    read = vocabulary.encode_many([line for line in text.splitlines() if line.strip()])
    return [np.append(np.int64(vocabulary.eos_id), ids)[None] for ids in read if ids.size]
