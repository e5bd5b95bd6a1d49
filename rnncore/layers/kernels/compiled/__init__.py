"""The step of a cell, compiled for training: forward and gradient of one step as two functions, called along time.

``trace`` makes one graph of a step and its gradient, ``products`` takes weight gradients out of it and cuts large products in
parts, ``partition`` cuts the graph in a half that goes forward and one that goes back, ``program`` compiles both and runs them
along time, and ``steps`` keeps the programs of a layer.  See :func:`rnncore.compile_steps`.
"""

from rnncore.layers.kernels.compiled.steps import CompiledSteps

__all__ = ["CompiledSteps"]
