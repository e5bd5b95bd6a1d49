"""The command line: one file a command.  ``score``, ``sample`` and ``inspect`` never import torch."""
