"""Harnesses that attack the product, each a file with ``run(amount) -> Counts``; ``scripts/attack`` runs them as programs.

To add one: a file here with a function ``run(amount: int) -> dict[str, int]``.  ``amount`` is work, not time: rounds, clients,
blobs.  The counts say what was done; anything wrong is an exception, so that what is returned is what held.
"""
