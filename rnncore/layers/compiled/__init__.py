"""The step of a cell, compiled for training: forward and gradient of one step as two functions, called along time."""

from rnncore.layers.compiled.steps import CompiledSteps

__all__ = ["CompiledSteps"]
