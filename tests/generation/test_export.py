"""What ``export_generator`` and ``export_translator`` refuse, and that their verification sees planted faults."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx_ir as ir
import pytest

from rnncore.export import export_generator, export_translator
from rnncore.export.decoding import (
    beam_loop,
    beam_places,
    generator_graph,
    loop,
    sampling_nodes,
    translator,
    translator_graph,
)
from rnncore.export.decoding.generator_graph import Source
from rnncore.export.decoding.sampling_nodes import Sampler
from rnncore.export.graph.builder import Builder
from rnncore.runtime import load
from rnncore.runtime.errors import ExportError, InputError, VerificationError
from tests.generation.models import encoder_decoder, halves, streaming_file, translator_file, vocabulary
from tests.tolerances import fixed

Patch = Callable[[pytest.MonkeyPatch], None]


def no_top_k(patch: pytest.MonkeyPatch) -> None:
    plain = Sampler.of.__func__  # type: ignore[attr-defined]

    def of(builder: Builder, uniforms: Any, temperature: Any, top_k: Any, top_p: Any, size: int) -> Sampler:
        all_of_them = builder.op("Max", top_k, builder.constant(size))
        made: Sampler = plain(Sampler, builder, uniforms, temperature, all_of_them, top_p, size)
        return made

    patch.setattr(Sampler, "of", of)


def one_token_early(patch: pytest.MonkeyPatch) -> None:
    plain = Sampler._draw
    patch.setattr(
        Sampler,
        "_draw",
        lambda self, b, mass, u: b.op("Max", b.op("Sub", plain(self, b, mass, u), b.constant(1)), b.constant(0)),
    )


def nothing_rejected(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(generator_graph, "without", lambda builder, log_probs, *_: log_probs)


def prefix_forgotten(patch: pytest.MonkeyPatch) -> None:
    plain = Source.read

    def read(source: Any, builder: Any, ids: Any, lengths: Any, states: Any, outside: Any = None) -> Any:
        values = plain(source, builder, ids, lengths, states, outside)
        return values if outside is not None else [values[0], *states]

    patch.setattr(Source, "read", read)


def states_exchanged(patch: pytest.MonkeyPatch) -> None:
    plain = Source.read

    def read(*args: Any, **options: Any) -> Any:
        log_probs, h, c, *rest = plain(*args, **options)
        return [log_probs, c, h, *rest]

    patch.setattr(Source, "read", read)


def likeliest_backwards(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(sampling_nodes, "greedy", lambda b, log_probs: b.op("ArgMin", log_probs, axis=1, keepdims=0))


def ends_too_late(patch: pytest.MonkeyPatch) -> None:
    plain = loop._Body.__init__

    def init(self: Any, body: Builder, start: Any, end: int, dtype: ir.DataType) -> None:
        plain(self, body, start, end + 1, dtype)

    patch.setattr(loop._Body, "__init__", init)


@pytest.mark.parametrize(
    "fault",
    [
        no_top_k,
        one_token_early,
        nothing_rejected,
        prefix_forgotten,
        states_exchanged,
        likeliest_backwards,
        ends_too_late,
    ],
)
def test_verification_sees_a_wrong_generator(fault: Patch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fault(monkeypatch)
    with pytest.raises(VerificationError):
        export_generator(streaming_file(), tmp_path / "g.onnx")
    assert not list(tmp_path.iterdir())


def argmin(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(
        beam_loop._Body,
        "_likeliest",
        lambda self, b, log_probs: b.op("Where", self.closed, self.end, b.op("ArgMin", log_probs, axis=1)),
    )


def lengths_ignored(patch: pytest.MonkeyPatch) -> None:
    plain = translator_graph.inline

    def inline(graph: Any, wanted: Any, arguments: Any, named: Builder, **options: Any) -> Any:
        if "source" in arguments:
            full = named.op(
                "Expand",
                named.op("Shape", arguments["source"], start=1, end=2),
                named.op("Shape", arguments["lengths"]),
            )
            arguments = {**arguments, "lengths": full}
        return plain(graph, wanted, arguments, named, **options)

    patch.setattr(translator_graph, "inline", inline)


def replaced_in_searches(patch: pytest.MonkeyPatch, replace: Callable[..., None]) -> None:
    """``replace(body, builder, kept, before, parent)`` changes what is carried on, but not in greedy decoding."""
    plain = beam_loop._Body._kept

    def kept(self: Any, builder: Builder, log_probs: Any, states: Any, token: Any, *where: Any) -> Any:
        values = plain(self, builder, log_probs, states, token, *where)
        if where:
            replace(self, builder, values, [self.token, self.closed, self.log_prob, self.count, *states], where[0])
        return values

    patch.setattr(beam_loop._Body, "_kept", kept)


def states_stay_where_they_are(patch: pytest.MonkeyPatch) -> None:
    def replace(body: Any, builder: Builder, kept: list[Any], before: list[Any], _: Any) -> None:
        kept[7:] = [builder.op("Identity", state) for state in before[4:]]

    replaced_in_searches(patch, replace)


def one_state_stays_where_it_is(patch: pytest.MonkeyPatch) -> None:
    def replace(body: Any, builder: Builder, kept: list[Any], before: list[Any], _: Any) -> None:
        kept[-1] = builder.op("Identity", before[-1])

    replaced_in_searches(patch, replace)


def scores_are_not_carried(patch: pytest.MonkeyPatch) -> None:
    def replace(body: Any, builder: Builder, kept: list[Any], before: list[Any], parent: Any) -> None:
        kept[2] = builder.op("Sub", kept[2], builder.op("Gather", before[2], parent, axis=0))

    replaced_in_searches(patch, replace)


def tokens_stay_where_they_are(patch: pytest.MonkeyPatch) -> None:
    def replace(body: Any, builder: Builder, kept: list[Any], *_: Any) -> None:
        kept[4] = builder.op("Concat", body.ids, kept[0], axis=1)

    replaced_in_searches(patch, replace)


def log_probs_of_tokens_stay_where_they_are(patch: pytest.MonkeyPatch) -> None:
    def replace(body: Any, builder: Builder, kept: list[Any], *_: Any) -> None:
        kept[5] = builder.op("Concat", body.log_probs, builder.op("Slice", kept[5], *last(builder)), axis=1)

    def last(builder: Builder) -> list[Any]:
        return [builder.constant([n]) for n in (-1, 2**62, 1)]

    replaced_in_searches(patch, replace)


def changed_body(patch: pytest.MonkeyPatch, change: Callable[[Any, Builder], None]) -> None:
    plain = beam_loop._Body.__init__

    def init(self: Any, outside: Builder, *rest: Any) -> None:
        plain(self, outside, *rest)
        change(self, outside)

    patch.setattr(beam_loop._Body, "__init__", init)


def no_length_penalty(patch: pytest.MonkeyPatch) -> None:
    def change(body: Any, outside: Builder) -> None:
        body.penalty = outside.op("Sub", body.penalty, body.penalty)

    changed_body(patch, change)


def one_token_more(patch: pytest.MonkeyPatch) -> None:
    changed_body(
        patch, lambda body, outside: setattr(body, "limit", outside.op("Add", body.limit, outside.constant(1)))
    )


def beams_of_others(patch: pytest.MonkeyPatch) -> None:
    def change(body: Any, outside: Builder) -> None:
        body.within = outside.op("Equal", body.within, body.within)

    changed_body(patch, change)


def ended_sequences_are_dropped(patch: pytest.MonkeyPatch) -> None:
    def change(body: Any, outside: Builder) -> None:
        body.at_end = outside.op("Not", outside.op("Equal", body.at_end, body.at_end))

    changed_body(patch, change)


def rows_exchanged(patch: pytest.MonkeyPatch) -> None:
    def spread(self: Any, value: Any) -> Any:
        builder = self._builder
        backwards = builder.op("Sub", builder.op("ReduceMax", self.row, keepdims=0), self.row)
        return builder.op("Gather", value, backwards, axis=0)

    patch.setattr(beam_places.Places, "spread", spread)


BEAM_FAULTS: list[Patch] = [
    states_stay_where_they_are,
    one_state_stays_where_it_is,
    scores_are_not_carried,
    tokens_stay_where_they_are,
    log_probs_of_tokens_stay_where_they_are,
    no_length_penalty,
    one_token_more,
    beams_of_others,
    ended_sequences_are_dropped,
    rows_exchanged,
]


@pytest.mark.parametrize("fault", [argmin, lengths_ignored, *BEAM_FAULTS])
def test_verification_sees_a_wrong_translator(fault: Patch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert translator_file("general"), "without a fault it is exported"
    monkeypatch.setattr(translator, "trace_encoder_and_decoder", lambda *_: halves("general"))
    fault(monkeypatch)
    with pytest.raises(VerificationError):
        export_translator(encoder_decoder("general"), tmp_path / "t.onnx")
    assert not list(tmp_path.iterdir())


def test_sources_that_cannot_generate_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"(?s)cannot generate.*inputs.*does not stream"):
        export_generator(translator_file("general"), tmp_path / "g.onnx", start=0, end=0)
    with pytest.raises(ExportError, match="does not exist"):
        export_generator(streaming_file(), tmp_path / "none" / "g.onnx")
    with pytest.raises(InputError, match="2 problems"):
        export_generator(streaming_file(), tmp_path / "g.onnx", end=11, rejected=[-1])
    with pytest.raises(InputError, match="cannot be rejected"):
        export_generator(streaming_file(), tmp_path / "g.onnx", rejected=[0])
    assert not list(tmp_path.iterdir())


def test_models_that_do_not_fit_their_vocabularies_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="source vocabulary has 11 tokens, the model was made for 7"):
        export_translator(encoder_decoder("general"), tmp_path / "t.onnx", source_vocabulary=vocabulary())
    with pytest.raises(InputError, match="expected an EncoderDecoder"):
        export_translator(encoder_decoder("general").encoder, tmp_path / "t.onnx")  # type: ignore[arg-type]


def test_the_report_is_in_the_file(tmp_path: Path) -> None:
    report = export_generator(streaming_file(), tmp_path / "g.onnx")
    stored = load(report.path).report
    assert stored == report.verification
    assert stored["tokens"] > 100 and stored["max_abs"] < fixed("float32 long")
    assert "tokens verified" in str(report)
