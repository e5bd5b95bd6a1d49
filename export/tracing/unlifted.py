"""A trace without the lengths that were lifted into it: what tracing the module again without them would give."""

from __future__ import annotations

from dataclasses import replace

from rnncore.export.tracing.recorder import DOMAIN, OP_TYPE, Call
from rnncore.export.tracing.trace import LIFTED_LENGTHS, Trace

_LENGTHS = 2  # the place of them among the inputs of a placeholder


def without_lifted_lengths(traced: Trace) -> Trace | None:
    """``traced`` as if no layer had been handed lengths; None where more than that depends on them.

    Lifted lengths go to placeholders as they are and nowhere else, so these go on without them.  What a module itself does
    with lengths, and masks of layers without a loop, only a trace of its own leaves out.
    """
    if not traced.lengths_lifted or traced.example.lengths is not None or traced.lengths != LIFTED_LENGTHS:
        return None
    model = traced.model.clone()
    (lengths,) = (value for value in model.graph.inputs if value.name == LIFTED_LENGTHS)
    calls: dict[str, Call] = dict(traced.calls)
    for node, place in list(lengths.uses()):
        if (node.domain, node.op_type, place) != (DOMAIN, OP_TYPE, _LENGTHS):
            return None
        node.replace_input_with(place, None)
        name = node.attributes["call"].as_string()
        calls[name] = replace(calls[name], lengths=False)
    model.graph.inputs.remove(lengths)
    return replace(traced, model=model, calls=calls, lengths=None, lengths_lifted=False)
