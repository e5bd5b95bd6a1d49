"""Activation functions and layer normalisation, from their textbook definitions."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

Array = np.ndarray
Function = Callable[[Array], Array]


def sigmoid(v: Array) -> Array:
    # exp of a negative number only: 1 / (1 + exp(-v)) overflows (with a warning) at v = -1e4.
    small = np.exp(-np.abs(v))
    return np.where(v >= 0, 1 / (1 + small), small / (1 + small))


def log_sigmoid(v: Array) -> Array:
    return -np.logaddexp(0.0, -v)


def softplus(v: Array) -> Array:
    """log(1 + e^v); torch cuts over to v itself above 20, which is off by 2e-9 there, so the oracle does as well."""
    return np.where(v > 20, v, np.logaddexp(0.0, v))


def gelu(v: Array) -> Array:
    """v times the normal distribution function; erfc keeps the left tail exact."""
    return v * 0.5 * np.array([math.erfc(-element / math.sqrt(2.0)) for element in v.ravel()]).reshape(v.shape)


def elu(v: Array, alpha: float = 1.0) -> Array:
    return np.where(v > 0, v, alpha * np.expm1(np.minimum(v, 0.0)))


def selu(v: Array) -> Array:
    """Klambauer et al. 2017, with their two constants."""
    return 1.0507009873554804934193349852946 * elu(v, 1.6732632423543772848170429916717)


FUNCTIONS: dict[str, Function] = {
    "sigmoid": sigmoid,
    "tanh": np.tanh,
    "relu": lambda v: np.maximum(v, 0.0),
    "hard_sigmoid": lambda v: np.clip(v / 6 + 0.5, 0.0, 1.0),
    "hard_sigmoid_keras2": lambda v: np.clip(0.2 * v + 0.5, 0.0, 1.0),
    "hard_tanh": lambda v: np.clip(v, -1.0, 1.0),
    "softsign": lambda v: v / (1 + np.abs(v)),
    "softplus": softplus,
    "elu": elu,
    "selu": selu,
    "silu": lambda v: v * sigmoid(v),
    "gelu": gelu,
    "leaky_relu": lambda v: np.where(v > 0, v, 0.01 * v),
    "linear": lambda v: v,
}


def layer_norm(v: Array, gain: Array, shift: Array | float = 0.0, epsilon: float = 1e-5) -> Array:
    """Ba et al. 2016: zero mean, unit (biased) variance over the vector, then gain and shift."""
    centred = v - v.mean()
    return gain * centred / np.sqrt((centred**2).mean() + epsilon) + shift
