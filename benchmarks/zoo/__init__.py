"""Public recurrent classes, untouched, through the exporter: what works, what is refused, and what is wrong."""
