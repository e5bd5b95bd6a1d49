"""Complex numbers as two real ones each: ONNX has no others.

While a module is recorded, every operation on complex tensors is written down as the real operations that give its real and
its imaginary part.  State spaces carry such states (S4, S4D, DSS, LRU).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from rnncore.export.tracing.callers import user_lines
from rnncore.runtime.errors import ExportError

aten = torch.ops.aten
Run = Callable[..., Any]
Parts = tuple[Any, Any]
"""Real and imaginary part: tensors, or numbers for a number."""

_BY_PARTS = {
    *(
        "view",
        "_unsafe_view",
        "reshape",
        "expand",
        "permute",
        "transpose",
        "t",
        "unsqueeze",
        "squeeze",
        "select",
        "slice",
    ),
    *("clone", "alias", "detach", "sum", "mean", "repeat", "flip", "roll", "index_select", "index", "diagonal", "neg"),
    *("constant_pad_nd", "unbind", "split", "split_with_sizes", "cumsum", "cat", "stack", "select_scatter"),
    *("slice_scatter", "movedim", "as_strided", "unfold", "contiguous", "_reshape_alias"),
}
"""What does the same to both parts."""
_FILLED = {"zeros": 0.0, "new_zeros": 0.0, "zeros_like": 0.0, "ones": 1.0, "new_ones": 1.0, "ones_like": 1.0}
_OF_SIZE = ("zeros", "ones", "full", "new_zeros", "new_ones", "new_full")
OF_PARTS = (aten.view_as_complex.default, aten.complex.default, aten.polar.default, aten._fft_r2c.default)
"""Operations that make complex numbers of real ones."""
_CONJUGATES = ("_conj", "conj_physical", "_conj_physical")


def real_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype of either part."""
    return torch.float64 if dtype == torch.complex128 else torch.float32


class ComplexNumbers:
    """Knows the parts of complex tensors.

    run: runs and records an operation on real tensors.  as_it_is: any operation.  constant: records a real tensor that is no
    result.
    """

    def __init__(self, run: Run, as_it_is: Run, constant: Callable[[Tensor], None]) -> None:
        self._run, self._as_it_is, self._constant = run, as_it_is, constant
        self._parts: dict[int, tuple[Tensor, Parts]] = {}

    def concerns(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
        """Whether an operation on ``args`` has to do with complex numbers."""
        dtype = kwargs.get("dtype")
        return (isinstance(dtype, torch.dtype) and dtype.is_complex) or any(map(_is_complex, args))

    def apply(self, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """The result of ``func``, with its parts recorded.

        Raises:
            ExportError: it is an operation that is not known to have real parts.
        """
        name = str(func).removeprefix("aten.").partition(".")[0]
        rule = getattr(self, f"_{name.strip('_')}", None)
        if name in _BY_PARTS:
            return self._by_parts(func, args, kwargs)
        if name in _FILLED or name in ("full", "new_full", "full_like"):
            return self._filled(name, args, kwargs)
        if name in _CONJUGATES:
            real, imaginary = self.parts(args[0])
            return self._made((real, self._run(aten.neg.default, imaginary)))
        if name in (
            "copy",
            "lift_fresh",
            "_to_copy",
            "view_as_real",
            "view_as_complex",
            "complex",
            "polar",
            "where",
            "abs",
            "angle",
            "_fft_r2c",
            "_fft_c2r",
            "_fft_c2c",
        ):
            return getattr(self, f"_of_{name.strip('_')}")(*args, **kwargs)
        if rule is not None and not kwargs.get("alpha"):
            return rule(*args)
        raise _refusal(f"forward computes with complex numbers in a way that is not known to have real parts ({func})")

    def parts(self, value: Any) -> Parts:
        """Of a tensor or a number; a real one has the number 0 as its imaginary part."""
        if not isinstance(value, Tensor):
            return (value.real, value.imag) if isinstance(value, complex) else (value, 0)
        if not value.is_complex():
            return value, 0
        if id(value) not in self._parts:
            own = [part.detach().clone() for part in (value.real, value.imag)]
            for part in own:
                self._constant(part)
            self._parts[id(value)] = (value, (own[0], own[1]))
        return self._parts[id(value)][1]

    def _made(self, parts: Parts) -> Tensor:
        """A complex tensor of these parts; a part that is a number stays one, so that no size of it is asked for."""
        real, imaginary = parts
        if not isinstance(real, Tensor) and not isinstance(imaginary, Tensor):
            raise TypeError("a complex number whose parts are both no tensors")
        like = real if isinstance(real, Tensor) else imaginary
        made = torch.complex(
            *(part if isinstance(part, Tensor) else torch.full_like(like, float(part)) for part in (real, imaginary))
        )
        self._parts[id(made)] = (made, (real, imaginary))
        return made

    def tensors(self, parts: Parts) -> tuple[Tensor, Tensor]:
        """Both parts as tensors."""
        real, imaginary = parts
        if not isinstance(imaginary, Tensor):
            imaginary = self._run(aten.full_like.default, real, float(imaginary))
        if not isinstance(real, Tensor):
            real = self._run(aten.full_like.default, imaginary, float(real))
        return real, imaginary

    # Operations with both parts.

    def _by_parts(self, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        found = []
        for number in (0, 1):
            own = [self._part(value, number) for value in args]
            found.append(self._run(func, *own, **kwargs))
        if isinstance(found[0], list | tuple):
            return type(found[0])(self._made(pair) for pair in zip(*found, strict=True))
        return self._made((found[0], found[1]))

    def _part(self, value: Any, number: int) -> Any:
        if isinstance(value, list | tuple):
            return type(value)(self._part(part, number) for part in value)
        if not isinstance(value, Tensor) or not (value.is_complex() or value.is_floating_point()):
            return value
        return self.tensors(self.parts(value))[number]

    def _filled(self, name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Tensor:
        own = dict(kwargs)
        like = args[0] if isinstance(args[0], Tensor) else None
        size = list(args[0] if name in _OF_SIZE[:3] else args[1] if name in _OF_SIZE else like.shape)  # type: ignore[union-attr]
        dtype = own.pop("dtype", None) or (like.dtype if like is not None else torch.complex64)
        filling = complex(_FILLED[name] if name in _FILLED else args[-1])
        if not dtype.is_complex:
            return self._run(aten.full.default, size, filling.real, dtype=dtype)
        options = {"dtype": real_dtype(dtype)}
        parts = [self._run(aten.full.default, size, part, **options) for part in (filling.real, filling.imag)]
        return self._made((parts[0], parts[1]))

    def _of_copy(self, _: Tensor, source: Tensor, *rest: Any) -> Tensor:
        return self._made(self.parts(source))

    def _of_lift_fresh(self, value: Tensor) -> Tensor:
        return self._made(self.parts(value))

    def _of_to_copy(self, value: Tensor, *, dtype: torch.dtype | None = None, **_: Any) -> Tensor:
        dtype = value.dtype if dtype is None else dtype
        real, imaginary = self.parts(value)
        own = real_dtype(dtype) if dtype.is_complex else dtype
        real = self._run(aten._to_copy.default, real, dtype=own)
        if not dtype.is_complex:
            return real
        if isinstance(imaginary, Tensor):
            imaginary = self._run(aten._to_copy.default, imaginary, dtype=own)
        return self._made((real, imaginary))

    def _of_view_as_real(self, value: Tensor) -> Tensor:
        return self._run(aten.stack.default, list(self.tensors(self.parts(value))), -1)

    def _of_view_as_complex(self, value: Tensor) -> Tensor:
        return self._made((self._run(aten.select.int, value, -1, 0), self._run(aten.select.int, value, -1, 1)))

    def _of_complex(self, real: Tensor, imaginary: Tensor) -> Tensor:
        return self._made((real, imaginary))

    def _of_polar(self, size: Tensor, angle: Tensor) -> Tensor:
        cos, sin = self._run(aten.cos.default, angle), self._run(aten.sin.default, angle)
        return self._made((self._run(aten.mul.Tensor, size, cos), self._run(aten.mul.Tensor, size, sin)))

    def _of_where(self, condition: Tensor, one: Any, other: Any) -> Tensor:
        pairs = zip(self.tensors(self.parts(one)), self.tensors(self.parts(other)), strict=True)
        real, imaginary = (self._run(aten.where.self, condition, a, b) for a, b in pairs)
        return self._made((real, imaginary))

    def _of_abs(self, value: Tensor) -> Tensor:
        return self._run(aten.sqrt.default, self._square(self.parts(value)))

    def _of_angle(self, value: Tensor) -> Tensor:
        real, imaginary = self.tensors(self.parts(value))
        return self._run(aten.atan2.default, imaginary, real)

    # Frequencies: torch's exporter knows them, and nothing else of what is done to complex numbers.

    def _of_fft_r2c(self, value: Tensor, *rest: Any) -> Tensor:
        return self._apart(self._as_it_is(aten._fft_r2c.default, value, *rest))

    def _of_fft_c2c(self, value: Tensor, *rest: Any) -> Tensor:
        return self._apart(self._as_it_is(aten._fft_c2c.default, self._together(value), *rest))

    def _of_fft_c2r(self, value: Tensor, *rest: Any) -> Tensor:
        return self._as_it_is(aten._fft_c2r.default, self._together(value), *rest)

    def _together(self, value: Tensor) -> Tensor:
        return self._as_it_is(aten.complex.default, *self.tensors(self.parts(value)))

    def _apart(self, value: Tensor) -> Tensor:
        both = self._as_it_is(aten.view_as_real.default, value)
        return self._made((self._run(aten.select.int, both, -1, 0), self._run(aten.select.int, both, -1, 1)))

    # Arithmetic.

    def _sum(self, a: Any, b: Any, *, sign: int = 1) -> Any:
        if not isinstance(b, Tensor) and b == 0:
            return a
        if not isinstance(a, Tensor) and a == 0:
            return b if sign > 0 else self._run(aten.neg.default, b) if isinstance(b, Tensor) else -b
        if not isinstance(a, Tensor) and not isinstance(b, Tensor):
            return a + sign * b
        if not isinstance(a, Tensor):
            b = b if sign > 0 else self._run(aten.neg.default, b)
            return self._run(aten.add.Tensor, b, a)
        return self._run(aten.add.Tensor if sign > 0 else aten.sub.Tensor, a, b)

    def _product(self, a: Any, b: Any, func: Any = aten.mul.Tensor) -> Any:
        if any(not isinstance(value, Tensor) and value == 0 for value in (a, b)):
            return 0
        if not isinstance(a, Tensor) and not isinstance(b, Tensor):
            return a * b
        if any(not isinstance(value, Tensor) and value == 1 for value in (a, b)):
            return a if isinstance(a, Tensor) else b
        return self._run(func, a, b) if isinstance(a, Tensor) else self._run(func, b, a)

    def _square(self, parts: Parts) -> Any:
        real, imaginary = parts
        return self._sum(self._product(real, real), self._product(imaginary, imaginary))

    def _times(self, a: Parts, b: Parts, func: Any = aten.mul.Tensor) -> Parts:
        real = self._sum(self._product(a[0], b[0], func), self._product(a[1], b[1], func), sign=-1)
        return real, self._sum(self._product(a[0], b[1], func), self._product(a[1], b[0], func))

    def _mul(self, a: Any, b: Any) -> Tensor:
        own, other = self.parts(a), self.parts(b)
        real, imaginary = self._times(own, other)
        if not isinstance(real, Tensor) and not isinstance(imaginary, Tensor):  # by 0
            real = self._run(aten.mul.Tensor, next(part for part in (*own, *other) if isinstance(part, Tensor)), real)
        return self._made((real, imaginary))

    def _mm(self, a: Tensor, b: Tensor) -> Tensor:
        return self._made(self._times(self.parts(a), self.parts(b), aten.mm.default))

    def _bmm(self, a: Tensor, b: Tensor) -> Tensor:
        return self._made(self._times(self.parts(a), self.parts(b), aten.bmm.default))

    def _mv(self, a: Tensor, b: Tensor) -> Tensor:
        return self._made(self._times(self.parts(a), self.parts(b), aten.mv.default))

    def _addcmul(self, c: Tensor, a: Tensor, b: Tensor) -> Tensor:
        return self._add(c, self._mul(a, b))

    def _add(self, a: Any, b: Any) -> Tensor:
        (r, i), (s, j) = self.parts(a), self.parts(b)
        return self._made((self._sum(r, s), self._sum(i, j)))

    def _sub(self, a: Any, b: Any) -> Tensor:
        (r, i), (s, j) = self.parts(a), self.parts(b)
        return self._made((self._sum(r, s, sign=-1), self._sum(i, j, sign=-1)))

    def _rsub(self, a: Any, b: Any) -> Tensor:
        return self._sub(b, a)

    def _inverse(self, parts: Parts) -> Parts:
        real, imaginary = self.tensors(parts)
        size = self._square((real, imaginary))
        over = self._run(aten.div.Tensor, imaginary, size)
        return self._run(aten.div.Tensor, real, size), self._run(aten.neg.default, over)

    def _reciprocal(self, a: Tensor) -> Tensor:
        return self._made(self._inverse(self.parts(a)))

    def _div(self, a: Any, b: Any) -> Tensor:
        own, other = self.parts(a), self.parts(b)
        if isinstance(other[1], Tensor) or other[1] != 0:
            if not isinstance(other[0], Tensor) and not isinstance(other[1], Tensor):
                inverse = 1 / complex(*other)
                return self._made(self._times(own, (inverse.real, inverse.imag)))
            return self._made(self._times(own, self._inverse(other)))
        parts = [
            self._run(aten.div.Tensor, part, other[0]) if isinstance(part, Tensor) else part
            for part in self.tensors(own)
        ]
        return self._made((parts[0], parts[1]))

    def _exp(self, a: Tensor) -> Tensor:
        real, imaginary = self.parts(a)
        if isinstance(real, Tensor):
            return self._of_polar(self._run(aten.exp.default, real), imaginary)
        cos, sin = self._run(aten.cos.default, imaginary), self._run(aten.sin.default, imaginary)
        return self._made((self._product(cos, math.exp(real)), self._product(sin, math.exp(real))))

    def _pow(self, a: Tensor, power: Any) -> Tensor:
        if not isinstance(power, int) or not 1 <= power <= 8:
            raise _refusal(
                f"forward takes a power of {power} of complex numbers, which has no real parts that are known"
            )
        found = own = self.parts(a)
        for _ in range(power - 1):
            found = self._times(found, own)
        return self._made(found)


def _refusal(what: str) -> ExportError:
    lines = user_lines(2)
    return ExportError(f"{what}: compute with the real and the imaginary part" + (f"\n  {lines[-1]}" if lines else ""))


def _is_complex(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return any(map(_is_complex, value))
    return isinstance(value, complex) or (isinstance(value, Tensor) and value.is_complex())
