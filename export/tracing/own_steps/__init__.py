"""A module's own step, ``step(x, state) -> (y, state)``, run over time where its ``forward`` computes all steps at once."""
