"""The packages of which ``scripts/mutation`` makes mutants, and the tests that concern them, quick ones first."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Package:
    """Where the source lies as it is installed, and the test files that concern it, fast ones."""

    source: str
    tests: tuple[str, ...]
    left_out: tuple[str, ...] = ()
    """Modules in which the tool itself breaks."""
    deselected: tuple[str, ...] = ()
    """Tests that see the tool's own frames."""
    in_place: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Where the source reads its own frames and code, which the tool wraps: each mutant is written into the copy in place of
    the function, and these tests run on it, by patterns of modules, the first that fits.  ``tests`` then only find the mutants.
    """


def _in(folder: str, *names: str) -> tuple[str, ...]:
    return tuple(f"tests/{folder}/test_{name}.py" for name in names)


PACKAGES = {
    "runtime/format": Package(
        "rnncore/runtime/format",
        (
            *_in("runtime", "atomic", "axes", "exact_limits", "golden_text", "drawn", "protobuf", "files", "limits"),
            *_in(
                "runtime",
                "options",
                "formats",
                "weights_files",
                "folding",
                "comparison",
                "second_files",
                "format_parts",
            ),
        ),
    ),
    "runtime/session": Package(
        "rnncore/runtime/session",
        (
            *_in("runtime", "session_parts", "run", "instructions", "providers", "other_systems", "options"),
            *_in("service", "threads", "row_sharing"),
        ),
    ),
    "runtime/tensors": Package(
        "rnncore/runtime/tensors",
        (
            *_in("runtime", "reading_arrays", "axes_of_slots", "contract", "batching_parts"),
            *_in("runtime", "run", "foreign", "stream", "strides", "options", "picks", "formats"),
            *_in("service", "ragged"),
        ),
    ),
    "runtime/tasks": Package(
        "rnncore/runtime/tasks",
        _in(
            "runtime_tasks",
            "task_parts",
            "decoding_parts",
            "decoding",
            "vectors",
            "claims",
            "affixes",
            "columns",
            "inputs",
        ),
    ),
    "runtime/batching": Package(
        "rnncore/runtime/batching",
        (*_in("runtime", "batching_parts", "run", "picks", "options", "strides"), *_in("service", "ragged", "slices")),
    ),
    "runtime/streaming": Package(
        "rnncore/runtime/streaming",
        (
            *_in(
                "runtime",
                "stream_parts",
                "stream",
                "strides",
                "state_rows",
                "snapshot_text",
                "bound_buffers",
                "foreign",
            ),
            *_in("runtime", "stream_machine"),
            *_in("service", "hooks", "snapshot"),
        ),
    ),
    "runtime/pool": Package(
        "rnncore/runtime/pool",
        (
            *_in(
                "service",
                "pool_parts",
                "pool_telling",
                "pool_api",
                "pool_streams",
                "slices",
                "swap_and_metrics",
                "pool",
                "admission",
                "eviction",
            ),
            *_in("ecosystem", "telemetry_numbers"),
        ),
    ),
    "export/verification": Package(
        "rnncore/export/verification",
        (
            *_in("proof", "verification_parts", "bench", "judging", "structure", "repeatable", "sizes"),
            *_in("export", "masks"),
        ),
    ),
    "export/tracing": Package(
        "rnncore/export/tracing",
        _in("export", "example_parts"),
        ("packing",),  # lends the code of its functions to torch's: already to find the mutants breaks it
        in_place={
            "rolling/counters": _in("export", "counters_parts", "small_loops", "counters"),
            "rolling/fitting": _in("export", "rolling_parts", "fitting"),
            "rolling/constants_of_sizes": _in("export", "log_rewrites", "constants_of_sizes"),
            "rolling/optional_resizes": _in("export", "log_rewrites", "optional_resizes"),
            "rolling/questions": _in("export", "log_rewrites", "settled_questions", "small_loops"),
            "rolling/circular_pad": _in("export", "circular_pad"),
            "rolling/group_norm": _in("export", "group_norm"),
            "rolling/spelled": _in("export", "circular_pad", "group_norm"),
            "rolling/settled": _in("export", "settled_questions", "small_loops"),
            "rolling/*": _in(
                "export",
                "rolling_parts",
                "step_layouts",
                "spread",
                "small_loops",
                "parallel_scans",
                "unrolled",
                "counters",
            ),
            **dict.fromkeys(
                ("groups", "affine_ties", "following", "probing"), _in("export", "probing_parts", "axes", "drawn_axes")
            ),
            "id_limits": _in("export", "id_rules", "id_limits"),
            "value_ranges": _in("export", "graph_readings", "id_limits"),
            "devices": _in("export", "devices"),
            "regions": _in("export", "regions", "id_limits"),
            "squeezes": _in("export", "way_parts", "squeezes"),
            "wide_numbers": _in("export", "precision"),
            "states": _in("export", "recorded_calls", "states", "zero_states", "refusals"),
            "one_step": _in("export", "row_parts", "one_step", "remembering_steps"),
            "full_rows": _in("export", "row_parts", "full_rows"),
            "copying": _in("export", "module_parts", "copying", "counters"),
            "packed_input": _in("export", "module_parts", "packed_input"),
            "flat_packing": _in("export", "row_parts", "flat_packing"),
            **dict.fromkeys(("own_layers", "held_sizes", "masks"), _in("export", "module_parts", "masks", "axes")),
            **dict.fromkeys(("observing", "passing_states"), _in("export", "row_parts", "packed", "lengths")),
            "other_ways": _in("export", "way_parts", "own_way", "lengths"),
            "time_operators": _in("export", "graph_readings", "context", "causal_conv"),
            "size_limits": (*_in("export", "graph_readings"), *_in("proof", "sizes"), *_in("export", "refusals")),
            "whole_*": _in("export", "spellings", "example_parts", "axes", "pooling", "drawn_axes"),
            "translations": _in("export", "translations"),
            "plain_spelling": _in("export", "spellings", "translations", "causal_conv"),
            "pooling": _in("export", "spellings", "pooling"),
            "fixed_sizes": _in("export", "spellings", "pooling"),
            "torch_onnx": _in("export", "spellings", "refusals", "operators", "squeezes"),
            "counted_*": _in("export", "spellings", "pooling", "operators", "axes"),
            "settled_weights": _in("export", "settled_weights"),
            "dense_products": _in("export", "sparse_weights"),
            "computed_lengths": _in("export", "computed_lengths"),
            "rows": _in("export", "bands"),
            "unlifted": _in("export", "unlifted"),
            "free_parts": (*_in("export", "free_parts"), *_in("proof", "sizes")),
            "axes": _in("export", "axes_parts", "probing_parts", "axes", "drawn_axes"),
            "unscripted": _in("export", "unscripted"),
            **dict.fromkeys(
                ("example", "binding", "nesting", "model_arguments"),
                _in(
                    "export", "example_parts", "module_parts", "axes_parts", "probing_parts", "axes", "masks", "lengths"
                ),
            ),
            **dict.fromkeys(
                ("operators", "recorder", "trace"),
                _in("export", "recorded_calls", "traced_sizes", "names", "operators", "axes", "lengths", "refusals"),
            ),
            "*": (
                *_in("export", "example_parts", "module_parts", "spellings", "operators", "axes", "masks", "packed"),
                *_in("export", "lengths", "squeezes", "refusals"),
                *_in("proof", "repeatable"),
            ),
        },
    ),
    "export/lowering": Package(
        "rnncore/export/lowering",
        (
            *_in("export", "context_parts", "first_steps_parts", "positions_parts", "starts_parts", "layer_states"),
            *_in("export", "projection_parts"),
            *_in(
                "export", "layouts", "graph_parts", "step_parts", "weights_in_files", "splice_parts", "log_sums_parts"
            ),
            *_in("export", "fused", "names", "pick", "columns", "file_contents", "branches", "calls", "log_sums"),
            *_in("export", "precision", "loop_fission", "causal_conv", "context", "parity"),
        ),
    ),
}
