"""``export_generator``: a language model as a file that writes whole texts in one call."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from rnncore.export.decoding.choices import check_choices
from rnncore.export.decoding.generator_check import check_generator
from rnncore.export.decoding.generator_graph import generator_graph
from rnncore.export.decoding.golden import golden_generator
from rnncore.export.exporter import export
from rnncore.export.file import named, saving, writable, write_entries, write_model
from rnncore.export.lowering.forms import Form
from rnncore.export.quantizing import quantize as quantize_file
from rnncore.export.signature import REPORT_KEY, write_metadata
from rnncore.export.targets import Target
from rnncore.export.tracing.source_lines import line_of_exception
from rnncore.runtime import Model, load
from rnncore.runtime.error_boundary import only_own_errors
from rnncore.runtime.errors import ExportError, InputError, raise_all
from rnncore.runtime.format.golden import GOLDEN_KEY
from rnncore.runtime.format.signature import BATCH, TIME, Signature
from rnncore.runtime.format.tensors import external_locations
from rnncore.runtime.notebook import shown
from rnncore.runtime.reopening import read_source
from rnncore.runtime.text.generation import GENERATION_KEY, SpecialTokens
from rnncore.runtime.text.language_model import TOKENIZER_KEY
from rnncore.runtime.text.vocabulary import Vocabulary


@dataclass(frozen=True)
class GeneratorReport:
    """What was written and how it was checked.

    path: the file.  size_bytes: its size.  signature: its inputs and outputs.  rules: its special tokens.  verification:
    the plain data stored in the file; empty if not verified.  precision: of its weights, such as "float32" or "int8".
    """

    path: Path
    size_bytes: int
    signature: Signature
    rules: SpecialTokens
    verification: dict[str, Any]
    precision: str = "float32"

    def _repr_html_(self) -> str:
        """What was written and how it was checked, and the signature, as tables in a notebook."""
        return shown(str(self.path), {"": str(self).removeprefix(f"{self.path}: ")}, self.signature)

    def __str__(self) -> str:
        done = self.verification
        checked = f"{done['tokens']} tokens verified, max error {done['max_abs']:.2g}" if done else "not verified"
        int8 = ", in int8" if self.precision == "int8" else ""
        return f"{self.path}: {self.size_bytes / 1e6:.2f} MB, generates in one call{int8}; {checked}"


@only_own_errors(ExportError, "the export", line_of_exception)
def export_generator(
    source: nn.Module | str | Path | bytes,
    path: str | Path,
    *,
    vocabulary: Vocabulary | None = None,
    start: int | None = None,
    end: int | None = None,
    rejected: Sequence[int] = (),
    form: Form | Literal["portable", "auto"] = "loop",
    verify: bool = True,
    metadata: Mapping[str, str] | None = None,
    seed: int = 0,
    quantize: Literal["int8"] | None = None,
    target: Target | None = None,
) -> GeneratorReport:
    """Write a model of token ids as one ONNX file in which the whole generation is an explicit ``Loop``.

    A host in any language generates with one call of onnxruntime; :class:`rnncore.runtime.TextGenerator` does it for
    texts.  What is optional may be left out here; a host that calls onnxruntime itself feeds the signature's default.
    The loop ends as soon as every row has ended.  Rows differ in prefix, length and options:

    ============== ================== ==================================================================================
    input          shape              meaning
    ============== ================== ==================================================================================
    prefix         int64 [batch,time] token ids to go on from, without ``start``; time may be 0
    lengths        int64 [batch]      valid ids of each row of ``prefix``
    uniforms       double             random numbers in [0, 1), one for each token; no row gets more tokens than that
                   [batch, draws]
    max_tokens     int64 [batch]      optional: most tokens of a row
    temperature    double [batch]     optional: 1 by default, 0 always takes the likeliest token
    top_k          int64 [batch]      optional: draw among the k likeliest tokens
    top_p          double [batch]     optional: draw among the likeliest tokens that together have this probability
    ============== ================== ==================================================================================

    ============== ================== ==================================================================================
    output         shape              meaning
    ============== ================== ==================================================================================
    ids            int64 [batch,      what was written; ``end`` where a row has ended
                   steps]
    ids_lengths    int64 [batch]      tokens of each row, without ``end``
    log_probs      [batch, steps]     natural-log probability that the model gives each of these tokens, that of ``end``
                                      included: before temperature, top_k, top_p and rejection; 0 beyond
    ============== ================== ==================================================================================

    Randomness comes in as numbers because ONNX has no generator whose seed is an input (the seed of ``RandomUniform`` is
    fixed in the file).  The same numbers give the tokens that ``rnncore.runtime.LanguageModel.sample`` draws step by
    step with them.

    Args:
        source: a module that maps ids [batch, time] to log-probabilities [batch, time, vocabulary], such as
            :class:`rnncore.LanguageModel`; or a streaming file of such a model, or its bytes.
        path: file to write.  Nothing is written unless everything succeeds.
        vocabulary: the tokens of a module; a file brings its own.
        start: the token read before the first one of every text; the vocabulary's ``<eos>`` by default.
        end: the token that ends a text; the vocabulary's ``<eos>`` by default.
        rejected: tokens that are never written, besides the vocabulary's ``<unk>``: the others share their probability,
            which is the distribution of drawing again until another token comes.
        form: of the recurrence, if ``source`` is a module, as for :func:`rnncore.export.export`.
        verify: read what the file writes with the model, token by token, and see that it is what had to be drawn.
        metadata: further entries of the file's metadata.
        seed: of verification.
        quantize: "int8": the model is in int8, held to PyTorch's answers as :func:`rnncore.export.export` holds it, or as
            :func:`rnncore.export.quantize` does if ``source`` is a file; what it writes is then held to that int8 model.
        target: with form="auto", "onnxruntime", the only program that this loop is proved for.

    Raises:
        InputError: an argument does not fit.
        ExportError: the source does not map token ids to log-probabilities, does not stream or takes no lengths.
        VerificationError: the file writes other tokens than the model does; no file is left.
    """
    check_choices(form, target, quantize)
    file = named(path)
    place = writable(file, external=False)
    data = _streaming(source, vocabulary, {"form": form, "seed": seed, "quantize": quantize, "target": target})
    if external_locations(data):
        raise ExportError("the weights of the source are in a second file: a generator is one file, of up to 1.9 GB")
    model = load(data)
    size = _check_source(model)
    if vocabulary is None and TOKENIZER_KEY in model.metadata:
        vocabulary = Vocabulary.from_json(model.metadata[TOKENIZER_KEY])
    rules = _rules(vocabulary, start, end, rejected, size)
    extra = {**(metadata or {}), GENERATION_KEY: rules.to_json()}
    if vocabulary is not None:
        extra[TOKENIZER_KEY] = vocabulary.to_json()
    written, signature = generator_graph(data, model, rules, size)
    write_metadata(written, signature, model.metadata["rnncore.form"], model.metadata["rnncore.precision"], extra)
    with saving(place) as temporary:
        write_model(written, temporary)
        report, golden = {}, {}
        if verify:
            loaded = load(temporary)
            report = check_generator(loaded, model, rules, seed + 2)
            golden = {GOLDEN_KEY: golden_generator(loaded, model, rules, seed + 3).to_json()}
        write_entries(temporary, {REPORT_KEY: json.dumps(report), **golden})
        length = temporary.stat().st_size
    return GeneratorReport(file, length, signature, rules, report, model.metadata["rnncore.precision"])


def _streaming(source: nn.Module | str | Path | bytes, vocabulary: Vocabulary | None, options: dict[str, Any]) -> bytes:
    """The streaming file of a module or file, in int8 if that was asked for."""
    with tempfile.TemporaryDirectory() as folder:
        made, given = Path(folder) / "stream.onnx", Path(folder) / "given.onnx"
        if isinstance(source, nn.Module):
            _export(source, made, vocabulary, options)
            return made.read_bytes()
        data = read_source(source)[1]
        if options["quantize"] is None or external_locations(data):
            return data
        given.write_bytes(data)
        quantize_file(given, made)
        return made.read_bytes()


def _export(module: nn.Module, file: Path, vocabulary: Vocabulary | None, options: dict[str, Any]) -> None:
    sizes = [m.num_embeddings for m in module.modules() if isinstance(m, nn.Embedding)]
    last = max(1, (len(vocabulary) if vocabulary is not None else min(sizes, default=2)) - 1)
    example = torch.tensor([[0, 1, last], [1, 0, 1]])
    extra = {} if vocabulary is None else {TOKENIZER_KEY: vocabulary.to_json()}
    export(module, file, example, streaming=True, lengths=True, metadata=extra, **options)


def _check_source(model: Model) -> int:
    """Size of the vocabulary; raises ExportError unless the file streams log-probabilities of token ids."""
    signature = model.signature
    problems = []
    if len(signature.inputs) != 1 or signature.inputs[0].dtype != "int64" or signature.inputs[0].shape != (BATCH, TIME):
        problems.append(f"its inputs are {[str(p.shape) for p in signature.inputs]}, expected token ids [batch, time]")
    shape = signature.outputs[0].shape
    if len(signature.outputs) != 1 or shape[:-1] != (BATCH, TIME) or not isinstance(shape[-1], int):
        found = [list(port.shape) for port in signature.outputs]
        problems.append(f"its outputs are {found}, expected one: log-probabilities [batch, time, vocabulary]")
    if not signature.causal:
        problems.append(f"it does not stream: {signature.not_causal_because}")
    if signature.lengths is None:
        problems.append("it has no lengths input: export it with lengths=True")
    raise_all(problems, ExportError, "the model cannot generate")
    return int(shape[-1])


def _rules(
    vocabulary: Vocabulary | None, start: int | None, end: int | None, rejected: Sequence[int], size: int
) -> SpecialTokens:
    if vocabulary is not None:
        start = vocabulary.eos_id if start is None else start
        end = vocabulary.eos_id if end is None else end
        rejected = [*rejected, *(() if vocabulary.unk_id is None else (vocabulary.unk_id,))]
    if start is None or end is None:
        raise InputError("start and end are not known: hand in the vocabulary, or the ids of both tokens")
    rules = SpecialTokens(start, end, tuple(sorted(set(map(int, rejected)))))
    named = [("start", start), ("end", end), *(("rejected", token) for token in rules.rejected)]
    problems = [f"{name} is {value}, expected 0 to {size - 1}" for name, value in named if not 0 <= value < size]
    if end in rules.rejected:
        problems.append(f"the token {end} ends a text, so it cannot be rejected")
    raise_all(problems)
    return rules
