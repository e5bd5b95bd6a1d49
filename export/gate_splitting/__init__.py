"""A product for each gate of a cell, in place of one product for all and a ``Split`` behind it."""
