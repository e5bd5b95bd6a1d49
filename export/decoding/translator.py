"""``export_translator``: an encoder-decoder as one file that reads a source and writes the target in one call."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rnncore.export.decoding.answers import Answers, FileAnswers, ModuleAnswers
from rnncore.export.decoding.choices import check_choices
from rnncore.export.decoding.golden import golden_translator
from rnncore.export.decoding.traced_parts import trace_encoder_and_decoder
from rnncore.export.decoding.translator_check import check_int8, check_translator
from rnncore.export.decoding.translator_graph import translator_graph
from rnncore.export.file import named, saving, writable, write_entries, write_model
from rnncore.export.int8.rewriting import quantize_int8
from rnncore.export.lowering.forms import Form
from rnncore.export.progress import Progress
from rnncore.export.signature import REPORT_KEY, precision_of, write_metadata
from rnncore.export.targets import Target
from rnncore.export.tracing.copying import copied
from rnncore.export.tracing.devices import brought_here
from rnncore.export.tracing.source_lines import line_of_exception
from rnncore.models.encoder_decoder import EncoderDecoder
from rnncore.runtime import load
from rnncore.runtime.error_boundary import only_own_errors
from rnncore.runtime.errors import ExportError, InputError, raise_all
from rnncore.runtime.format.golden import GOLDEN_KEY
from rnncore.runtime.format.signature import PREFIX, Signature
from rnncore.runtime.notebook import shown
from rnncore.runtime.text.translator import SOURCE_TOKENIZER_KEY, TARGET_TOKENIZER_KEY, TRANSLATION_KEY, DecoderFeeds
from rnncore.runtime.text.vocabulary import Vocabulary


@dataclass(frozen=True)
class TranslatorReport:
    """What was written and how it was checked.

    path: the file.  size_bytes: its size.  signature: its inputs and outputs.  verification: the plain data stored in
    the file; empty if not verified.  precision: of its weights, such as "float32" or "int8".
    """

    path: Path
    size_bytes: int
    signature: Signature
    verification: dict[str, Any]
    precision: str = "float32"

    def _repr_html_(self) -> str:
        """What was written and how it was checked, and the signature, as tables in a notebook."""
        return shown(str(self.path), {"": str(self).removeprefix(f"{self.path}: ")}, self.signature)

    def __str__(self) -> str:
        done = self.verification
        checked = f"{done['tokens']} tokens verified, max error {done['max_abs']:.2g}" if done else "not verified"
        line = f"{self.path}: {self.size_bytes / 1e6:.2f} MB, translates in one call; {checked}"
        int8 = done.get("int8")
        return (
            f"{line}\n  {int8['quantized']}, within {int8['worst_rms']:.2%} rms of PyTorch's log-probabilities"
            if int8
            else line
        )


@only_own_errors(ExportError, "the export", line_of_exception)
def export_translator(
    model: EncoderDecoder,
    path: str | Path,
    *,
    source_vocabulary: Vocabulary | None = None,
    target_vocabulary: Vocabulary | None = None,
    form: Form | Literal["auto"] = "loop",
    rejected: Sequence[int] = (),
    verify: bool = True,
    metadata: Mapping[str, str] | None = None,
    seed: int = 0,
    quantize: Literal["int8"] | None = None,
    target: Target | None = None,
) -> TranslatorReport:
    """Write an encoder-decoder as one ONNX file: encoder, and greedy decoding or beam search as an explicit ``Loop``.

    What is optional may be left out; a host that calls onnxruntime itself feeds the signature's default.

    ============== ====================== ==============================================================================
    input          shape                  meaning
    ============== ====================== ==============================================================================
    source         int64 [batch, time]    token ids
    lengths        int64 [batch]          valid ids of each row
    max_tokens     int64 [batch]          most tokens of each target, its end included
    beam           int64 [batch]          optional: sequences kept in the search; 1, the default, is greedy decoding
    length_penalty double [batch]         optional: targets are ranked by log P / tokens^length_penalty; 0 by default
    token          int64 [batch]          optional: -1, the default, begins with the source.  Otherwise decoding goes on
                                          with this token, from ``memory`` and the states; nobody reads ``source`` then
    memory         [batch, positions, M]  optional, with attention only: output ``memory.next`` of an earlier call
    decoder.<...>  [batch, size]          optional: the decoder's states, outputs ``decoder.<...>.next``
    ============== ====================== ==============================================================================

    ================ =========================== =======================================================================
    output           shape                       meaning
    ================ =========================== =======================================================================
    ids              int64 [batch, steps]        the best target found, the end token where it has ended
    ids_lengths      int64 [batch]               its tokens, without the end
    log_probs        [batch, steps]              natural-log probability of each, that of the end included; 0 beyond
    next_log_probs   [batch, target_size]        all log-probabilities of its last step: with ``max_tokens`` 1, what a
                                                 search outside of the file needs
    beam.ids         int64 [batch, beam, steps]  all targets found, best first, for the largest ``beam`` of a row
    beam.ids_lengths int64 [batch, beam]         tokens of each, without the end
    beam.log_prob    double [batch, beam]        log-probability of each whole target; -inf where there is none
    beam.score       double [batch, beam]        what it is ranked by
    ================ =========================== =======================================================================

    The rules of the search are those of :func:`rnncore.runtime.text.beam.beam_search`, its ties included; the loop ends as
    soon as every sequence that is kept has ended, or has all its tokens.

    Args:
        model: copied, never changed, and exported in eval mode.
        path: file to write.  Nothing is written unless everything succeeds.
        source_vocabulary, target_vocabulary: carried inside the file; without them it translates ids only.
        form: of the encoder's recurrence: "loop", "scan", "fused", "portable" or "auto", see :func:`rnncore.export.export`.
        rejected: target tokens that are never written, besides the vocabulary's ``<unk>``: a search goes on with the others
            as if these were impossible.  The file's log-probabilities stay those of the model.
        verify: compare the file with the model on sources of several lengths, alone, side by side, step by step, and in
            beam searches.
        metadata: further entries of the file's metadata.
        seed: of verification.
        quantize: "int8": products and tables in int8.  The file is verified in float32 first; then the log-probabilities of the
            int8 file are held to PyTorch's, and its searches to its own single steps.
        target: with form="auto", "onnxruntime", the only program that this loop is proved for.

    Raises:
        InputError: an argument does not fit.
        ExportError: the model cannot be traced.
        VerificationError: the file answers otherwise than the model; no file is left.
    """
    check_choices(form, target, quantize)
    file = named(path)
    place = writable(file, external=False)
    _check(model, source_vocabulary, target_vocabulary)
    model = brought_here(copied(model).eval())
    precision = precision_of(model)
    if quantize is not None and precision != "float32":
        raise ExportError(f"quantize='int8' starts from float32, the model has weights of {precision}: call .float()")
    never = _rejected(rejected, target_vocabulary, model)
    with Progress(f"export of {file.name}") as progress:
        progress.now("tracing")
        parts = trace_encoder_and_decoder(model, form, quantize is not None)
        progress.now("writing loops")
        written, signature = translator_graph(model, parts, never)
        extra = {**(metadata or {}), TRANSLATION_KEY: DecoderFeeds(model.config.end_id, parts.feeds, never).to_json()}
        for key, vocabulary in ((SOURCE_TOKENIZER_KEY, source_vocabulary), (TARGET_TOKENIZER_KEY, target_vocabulary)):
            if vocabulary is not None:
                extra[key] = vocabulary.to_json()
        write_metadata(written, signature, parts.form, precision, extra)
        with saving(place) as temporary:
            write_model(written, temporary)
            progress.now("comparing the file with PyTorch")
            answers: Answers = ModuleAnswers(model)
            report = check_translator(load(temporary), answers, seed + 1) if verify else {}
            if quantize is not None:
                progress.now("comparing int8 with PyTorch")
                done = quantize_int8(written, ())
                written.metadata_props[PREFIX + "precision"] = precision = "int8"
                write_model(written, temporary)
                small = FileAnswers(load(temporary))
                report = _check_int8(small, answers, report, str(done), seed + 1) if verify else {}
                answers = small
            progress.now("recording golden cases")
            golden = {}
            if verify:
                golden = {GOLDEN_KEY: golden_translator(load(temporary), answers, never, seed + 2).to_json()}
            write_entries(temporary, {REPORT_KEY: json.dumps(report), **golden})
            size = temporary.stat().st_size
    return TranslatorReport(file, size, signature, report, precision)


def _check_int8(small: FileAnswers, answers: Answers, float32: dict[str, Any], done: str, seed: int) -> dict[str, Any]:
    """The report of an int8 file: near PyTorch in what it says of any step, and true to its own steps in what it writes."""
    worst = check_int8(small, answers, seed)
    own = check_translator(small.file, small, seed)
    return {**own, "float32": float32, "int8": {"quantized": done, "worst_rms": worst}}


def _check(model: EncoderDecoder, source: Vocabulary | None, wanted: Vocabulary | None) -> None:
    if not isinstance(model, EncoderDecoder):
        raise InputError(f"model is a {type(model).__name__}, expected an EncoderDecoder")
    sizes = {"source": (source, model.config.source_size), "target": (wanted, model.config.target_size)}
    for name, (vocabulary, size) in sizes.items():
        if vocabulary is not None and len(vocabulary) != size:
            raise InputError(f"the {name} vocabulary has {len(vocabulary)} tokens, the model was made for {size}")
    if wanted is not None and wanted.eos_id != model.config.end_id:
        raise InputError(f"the target vocabulary ends with token {wanted.eos_id}, the model with {model.config.end_id}")


def _rejected(rejected: Sequence[int], vocabulary: Vocabulary | None, model: EncoderDecoder) -> tuple[int, ...]:
    unknown = () if vocabulary is None or vocabulary.unk_id is None else (vocabulary.unk_id,)
    tokens = tuple(sorted({int(token) for token in (*rejected, *unknown)}))
    problems = [
        f"rejected is {token}, expected 0 to {model.config.target_size - 1}"
        for token in tokens
        if not 0 <= token < model.config.target_size
    ]
    if model.config.end_id in tokens:
        problems.append(f"the token {model.config.end_id} ends a target, so it cannot be rejected")
    raise_all(problems)
    return tokens
