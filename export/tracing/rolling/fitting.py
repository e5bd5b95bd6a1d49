"""Numbers that follow the sizes of the free axes: found from a few samples, confirmed by the others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations
from typing import Any

import numpy as np

from rnncore.runtime.format.signature import TIME

_DIVISORS = (2, 3, 4, 8, 6, 5, 7)
"""Over a dozen sizes the larger ones look alike: eight, as strided layers make it, comes before them."""
FRAMES: ContextVar[tuple[tuple[int, int], ...]] = ContextVar("rnncore_frames", default=())
"""Further (divisor, shift) of time, as windows of the module say them."""
QUOTIENT = "time //"
"""Stands for (time + shift) // divisor beside time itself, as in what is missing up to a multiple."""
_ALL_TIMES = range(1, 200)
_FEWEST_TIMES = 5
"""Different numbers of steps that tell such rules apart."""


@dataclass(frozen=True)
class Formula:
    """A sum of products of sizes.

    terms: (factor, names of axes that are multiplied).  divisor and shift: every time axis stands for
    (size + shift) // divisor; but where a term has the :data:`QUOTIENT`, that is what stands for it, and the axis for itself.
    first: with a quotient, (divisor, shift) of what the axis stands for before.
    """

    terms: tuple[tuple[int | float, tuple[str, ...]], ...]
    divisor: int = 1
    shift: int = 0
    first: tuple[int, int] = (1, 0)

    def __call__(self, sizes: Mapping[str, Any]) -> Any:
        """The number at ``sizes``, whole numbers or symbols of torch."""
        total: Any = 0
        divided = QUOTIENT if self.has_quotient else TIME
        for factor, names in self.terms:
            product: Any = factor
            for name in names:
                size = sizes[TIME if name == QUOTIENT else name]
                if name in (TIME, QUOTIENT) and self.first[0] > 1:
                    size = (size + self.first[1]) // self.first[0]
                if name == divided and self.divisor > 1:
                    size = (size + self.shift) // self.divisor
                product = product * size
            total = total + product
        return total

    @property
    def axes(self) -> set[str]:
        """The axes that the number depends on."""
        return {TIME if name == QUOTIENT else name for _, names in self.terms for name in names}

    @property
    def has_quotient(self) -> bool:
        """Whether time and a quotient of it stand side by side."""
        return any(QUOTIENT in names for _, names in self.terms)

    @property
    def constant(self) -> bool:
        """Whether it is the same at all sizes."""
        return not self.axes


def fit(values: Sequence[Any], points: Sequence[Mapping[str, int]]) -> Formula | None:
    """The formula that gives ``values`` at ``points``, None if none of those that are known does.

    The points must tell sums from products: in one of them several sizes are others than in the first.
    """
    if all(value == values[0] for value in values):
        return Formula(((values[0], ()),))
    whole = all(type(value) is int for value in values)
    wanted = np.array(values, np.float64)
    for divisor, shift, products, inverse in _tables(
        tuple(tuple(sorted(point.items())) for point in points), FRAMES.get()
    ):
        if divisor > 1 and not whole:
            continue
        solved = inverse @ wanted
        factors = [round(f) if whole else float(f) if abs(f) > 1e-12 else 0 for f in solved]
        found = Formula(tuple((f, names) for f, names in zip(factors, products, strict=True) if f), divisor, shift)
        got = [found(point) for point in points]
        if got == list(values) or (not whole and np.allclose(got, wanted, rtol=1e-9, atol=1e-12)):
            return found
    return _fit_rest(wanted, points) if whole else None


def _fit_rest(wanted: np.ndarray, points: Sequence[Mapping[str, int]]) -> Formula | None:
    """Time and a whole quotient of it together, as in what is missing up to a multiple: ``-time % 4``, ``-(time // 2) % 4``."""
    if any(TIME not in point for point in points):
        return None
    times = [point[TIME] for point in points]
    if len(set(times)) < _FEWEST_TIMES or len(set(zip(times, wanted.tolist(), strict=True))) > len(set(times)):
        return None  # or other axes decide as well
    rules, tables, inverses = _rests(tuple(times))
    factors = np.rint(inverses @ wanted)
    found: Formula | None = None
    for k in np.flatnonzero((np.einsum("rnc,rc->rn", tables, factors) == wanted).all(1)):
        _, of_time, of_quotient = factors[k]
        if of_time and of_quotient != -rules[k][0] * of_time:  # neither a rest nor a quotient: by accident
            continue
        terms = zip(map(int, factors[k]), ((), (TIME,), (QUOTIENT,)), strict=True)
        other = Formula(tuple((factor, names) for factor, names in terms if factor), *rules[k])
        if found is not None and any(found({TIME: t}) != other({TIME: t}) for t in _ALL_TIMES):
            return None  # so few points do not tell which
        found = found or other
    return found


@lru_cache(maxsize=32)
def _rests(times: tuple[int, ...]) -> tuple[list[tuple[int, int, tuple[int, int]]], np.ndarray, np.ndarray]:
    """Divisor, shift and what time stands for of each such rule, the simplest first; their tables, and what inverts these."""
    rules, tables = [], []
    for first in sorted((d, k) for d in (1, *_DIVISORS) for k in range(d)):
        inner = (np.array(times) + first[1]) // first[0]
        for divisor, shift in ((d, k) for d in _DIVISORS for k in range(d)):
            table = np.stack([np.ones(len(times)), inner, (inner + shift) // divisor], 1)
            if np.linalg.matrix_rank(table) == table.shape[1]:
                rules.append((divisor, shift, first))
                tables.append(table)
    return rules, np.array(tables), np.linalg.pinv(np.array(tables))


@lru_cache(maxsize=32)
def _tables(
    points: tuple[tuple[tuple[str, int], ...], ...], frames: tuple[tuple[int, int], ...]
) -> list[tuple[int, int, list[tuple[str, ...]], np.ndarray]]:
    """For each divisor and shift: them, products of sizes, and what turns values at ``points`` into factors of these."""
    sized = [dict(point) for point in points]
    axes = sorted({name for point in sized for name in point if len({p[name] for p in sized}) > 1})
    # Of those that fit the one that follows the fewest axes is right.
    choices = [some for count in range(1, len(axes) + 1) for some in combinations(axes, count)]
    found = []
    for divisor, shift in [(1, 0), *frames, *((d, k) for d in _DIVISORS for k in range(d))]:
        sizes = [{n: (p[n] + shift) // divisor if n == TIME else p[n] for n in axes} for p in sized]
        for some in choices if divisor == 1 else [some for some in choices if TIME in some]:
            found += [(divisor, shift, products, inverse) for products, inverse in _inverses(some, sizes)]
    square: list[tuple[str, ...]] = [
        (),
        (TIME,),
        (TIME, TIME),
    ]  # pairs of steps: as many of them as T * T, or half of it
    table = np.array([[float(np.prod([p[n] for n in names])) for names in square] for p in sized if TIME in axes])
    if len(table) and np.linalg.matrix_rank(table) == len(square):
        found.append((1, 0, square, np.linalg.pinv(table)))
    # Of all, too: with a divisor, some mixture of axes fits by accident what follows one with another divisor.
    return sorted(found, key=lambda table: len({name for names in table[2] for name in names}))


def _inverses(
    axes: tuple[str, ...], sizes: Sequence[Mapping[str, int]]
) -> list[tuple[list[tuple[str, ...]], np.ndarray]]:
    """All products of ``axes``; where the points are too few for these, one product and a number, and a sum of sizes."""
    products = [names for n in range(len(axes) + 1) for names in combinations(axes, n)]
    table = np.array([[float(np.prod([s[n] for n in names])) for names in products] for s in sizes])
    if np.linalg.matrix_rank(table) == len(products):
        return [(products, np.linalg.pinv(table))]
    few = [[(), axes], [(), *((name,) for name in axes)]]
    return [(chosen, np.linalg.pinv(table[:, [products.index(n) for n in chosen]])) for chosen in few]
