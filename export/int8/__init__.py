"""``quantize="int8"``: which products, with which numbers, and what it costs."""
