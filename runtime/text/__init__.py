"""Language models and translators: scoring, sampling, searching."""
