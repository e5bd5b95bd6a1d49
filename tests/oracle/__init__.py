"""The independent oracle: the equations of the course notes in float64 NumPy, one row and one step at a time.

Slow and plain on purpose.  :mod:`functions`, :mod:`cells` and :mod:`layers` import neither torch nor rnncore (a test holds
that); only :mod:`adapt` knows how rnncore and torch lay out the same numbers.
"""
