"""Scale-out on Ray: models over columns of a data set, and streams over replicas of a deployment.

The classes that map columns need nothing of Ray: anything that hands out batches of Arrow, pandas or NumPy columns (Spark's
``mapInPandas``, ``datasets.map``) can call them.
"""

from __future__ import annotations

from rnncore.ray.mapping import Classify, ColumnMapper, Embed, Rate, Run, Score, Tag
from rnncore.ray.serving import StreamServer, StreamSession, stream_app

__all__ = [
    "Classify",
    "ColumnMapper",
    "Embed",
    "Rate",
    "Run",
    "Score",
    "StreamServer",
    "StreamSession",
    "Tag",
    "stream_app",
]
