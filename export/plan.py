"""What a file shall offer, and what is taken from that when its module turns out not to hold it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from rnncore.export.options import Options
from rnncore.export.tracing.chosen_outputs import left_out_by
from rnncore.export.tracing.longest_rows import LongestRow
from rnncore.export.tracing.size_limits import Guard
from rnncore.export.tracing.trace import LIFTED_LENGTHS, Trace
from rnncore.export.verification.cases import Case, Verdict, wrong_outputs
from rnncore.export.verification.sizes import MOST_STEPS, Sizes, broken_at
from rnncore.export.verification.structure import why_chunks_differ
from rnncore.runtime.errors import ExportError, NotStreamableError, VerificationError
from rnncore.runtime.format.signature import BATCH, TIME

_MOST = 1 << 30
ONE_WAY = (
    "a file goes one way at every size, that of the sizes it was traced at; write this with tensor operations that hold for "
    "all sizes, or export a module for each way"
)
PADDING_SHOWS = (
    "a padded batch is not what PyTorch answers, or not what each row answers alone (padded steps that are pooled, averaged or "
    "normalised, say: mask them by the lengths)"
)
PADDING_STAYS = (
    "the lengths of rows are an input like others: a padded batch is answered as PyTorch answers it, "
    "not each row as it is alone"
)


@dataclass(frozen=True)
class Plan:
    """What the file shall offer.

    lift_lengths: recurrent layers take the lengths of the rows.  stream: states become inputs and outputs; if not,
    not_causal_because says why.  must_lengths, must_stream: the caller insists.  dropped_lengths: lengths were given up for
    the sake of streams.  rewritten: for their sake what looks back was written in another way.  to_longest: batches are cut to
    their longest row where the module counts its steps itself; where it puts the others back behind them they are not.
    """

    lift_lengths: bool
    stream: bool
    not_causal_because: str = ""
    must_lengths: bool = False
    must_stream: bool = False
    dropped_lengths: bool = False
    rewritten: bool = False
    to_longest: bool = True

    @classmethod
    def of(cls, options: Options, own_lengths: str | None, inputs: Sequence[str]) -> Plan:
        """All that the caller wants, and what nobody forbids; ``own_lengths``: which of ``inputs`` are the module's own."""
        proves = options.verify  # "auto" is what is proved
        taken = own_lengths is None and LIFTED_LENGTHS in inputs  # by something else
        stream = options.streaming is True or (options.streaming == "auto" and proves)
        why_not = "exported with streaming=False" if options.streaming is False else "not verified"
        return cls(
            lift_lengths=options.lengths is True or (options.lengths == "auto" and proves and not taken),
            stream=stream,
            not_causal_because="" if stream else why_not,
            must_lengths=options.lengths is True and own_lengths is None,
            must_stream=options.streaming is True,
        )

    def batch_only(self, reason: str) -> Plan:
        """Without streams, and so with the lengths that were given up for them; NotStreamableError if they are a must."""
        if self.must_stream:
            raise NotStreamableError(f"streaming=True, but {reason}")
        lift = self.lift_lengths or self.dropped_lengths
        return replace(
            self, stream=False, not_causal_because=reason, lift_lengths=lift, dropped_lengths=False, rewritten=False
        )

    def cuts(self, trace: Trace) -> tuple[LongestRow, ...]:
        """Along what a file of this plan cuts batches to their longest row."""
        return trace.longest if self.to_longest and not self.stream else ()

    def narrowed(self, trace: Trace, verdict: Verdict) -> Plan:
        """Without what ``verdict``, on a file of this plan, disproved; the plan itself if all of it holds.

        Raises:
            VerificationError: what failed is no matter of the plan, or the caller insists.
            NotStreamableError: the same for streams.
        """
        wrong = verdict.failures("whole")
        if wrong and self.stream and self.rewritten:
            return self.batch_only(f"what it looks back at could not be written as states: {wrong[0]}")
        if wrong and self.cuts(trace):
            return replace(self, to_longest=False)
        _refuse_wrong_numbers(trace, wrong)
        mixed, ragged, streams = (verdict.failures(kind) for kind in ("rows", "ragged", "stream"))
        if mixed:
            names = [str(value.name) for value in trace.model.graph.outputs]
            way_out = left_out_by(names, wrong_outputs(mixed))
            raise VerificationError(
                _message(f"a row of a batch differs from the row alone: forward mixes rows{way_out}", mixed)
            )
        if ragged and not self.lift_lengths:
            raise VerificationError(_message(PADDING_SHOWS, ragged))
        if ragged and self.must_lengths:
            raise VerificationError(_message("a padded batch differs from each sequence alone", ragged))
        if ragged:
            # Streams that moved together were padded too: how the file without lengths streams is for the next round.
            return replace(self, lift_lengths=False)
        return self.batch_only(why_chunks_differ(trace, streams[0])) if streams else self


def far_end(trace: Trace, sizes: Sizes) -> tuple[int, str] | None:
    """Most steps before ``forward`` goes another way than ``trace``, far beyond all that is checked, and what to say of it.

    Such as ``assert x.shape[1] <= 10_000`` of a table of positions.  Up to there the program is the same as at the ``sizes``
    that are checked, and a file that takes no more is right.  None if it goes one way for ever.
    """
    ends = [
        (turn - 1, guard)
        for guard in sizes.unchecked
        if guard.axes == (TIME,)
        for turn in guard.turns(TIME, {}, _MOST)
        if turn > max(MOST_STEPS, trace.sizes[TIME])
    ]
    if not ends:
        return None
    most, guard = min(ends, key=lambda end: end[0])
    return most, f"{_asks(guard)}, and a file goes one way at every size: it takes at most {most} steps"


def refuse_unchecked(sizes: Sizes) -> None:
    """Raise ExportError for a branch that turns beyond all sizes that can be checked."""
    for guard in sizes.unchecked:
        raise ExportError(
            f"{_asks(guard)}, which turns beyond the {MOST_STEPS} steps and the batches that an export checks: {ONE_WAY}"
        )


def _refuse_wrong_numbers(trace: Trace, wrong: Sequence[Case]) -> None:
    """Raise VerificationError for whole batches that disagree, and say which line asks for a size, if one does."""
    if not wrong:
        return
    guards = trace.limits.guards
    asked = [g for case in wrong for g in broken_at(guards, {BATCH: case.batch, TIME: case.time}) if g.where]
    message = _message("the exported file and the PyTorch module disagree", wrong)
    if asked:
        message += f"\n  {_asks(asked[0])}: {ONE_WAY}"
    raise VerificationError(message)


def _asks(guard: Guard) -> str:
    return f"forward asks at {guard.where} whether {guard.text}"


def _message(title: str, cases: Sequence[Case]) -> str:
    return title + ":\n" + "\n".join(f"  - {case}" for case in cases[:6])
