"""Spark's ``mapInPandas`` with a mapper of ours, on this machine: the recipe of the guide.

CI has no Spark: this runs by ``scripts/ecosystem`` where a Java is installed.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from rnncore import runtime
from rnncore.ray import Embed
from tests.task_models import model_file, sequences
from tests.tolerances import fixed

pytest.importorskip("pyspark", reason="Spark is not installed: scripts/ecosystem installs it")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.filterwarnings("default"),  # of Spark about Spark
    pytest.mark.skipif(shutil.which("java") is None, reason="Spark needs a Java, and there is none"),
]
EMBEDDER = "embedder, statistics"


def test_a_frame_of_spark_gets_vectors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pyspark.sql import SparkSession

    monkeypatch.setenv("PYSPARK_PYTHON", sys.executable)
    monkeypatch.setenv("SPARK_LOCAL_IP", "127.0.0.1")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parents[2]), *sys.path]))
    path = tmp_path / "m.onnx"
    path.write_bytes(model_file(EMBEDDER))
    rows = sequences(EMBEDDER, [1 + i % 5 for i in range(40)], 3)
    spark = (
        SparkSession.builder.master("local[2]")
        .config("spark.ui.enabled", "false")
        .config("spark.sql.warehouse.dir", str(tmp_path / "warehouse"))
        .getOrCreate()
    )
    try:
        frame = spark.createDataFrame(
            [(i, row.tolist()) for i, row in enumerate(rows)], "id long, x array<array<float>>"
        ).repartition(4)
        embed = Embed(path, "x")
        vectors = frame.mapInPandas(
            lambda frames: map(embed, frames), schema="id long, x array<array<float>>, embedding array<float>"
        )
        found = {row["id"]: row["embedding"] for row in vectors.collect()}
    finally:
        spark.stop()
    expected = runtime.Embedder.load(path).embed_many(rows)
    np.testing.assert_allclose(
        np.array([found[i] for i in range(40)], np.float32), expected, rtol=fixed("float32"), atol=fixed("float32")
    )
