"""Settings for every test: one thread a process, and how hard Hypothesis looks.

HYPOTHESIS_PROFILE=fast    a few examples: scripts/check
HYPOTHESIS_PROFILE=dev     the default of a plain pytest: new examples every time
HYPOTHESIS_PROFILE=ci      more examples, and the same ones every time: scripts/test
"""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

# Before torch or onnxruntime are imported.  Two pytest workers with a thread pool each would fight for the same cores,
# and sums added up in another order are not the same bits.
for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[variable] = "1"
os.environ["ACCELERATE_USE_CPU"] = "1"  # numbers that tests compare are the CPU's; tests/gpu asks for the other
os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # tests send nothing anywhere

# No deadline: the first example of a test pays for imports and exports, later ones do not.
COMMON = settings(deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow])

settings.register_profile("fast", COMMON, max_examples=10, derandomize=True, database=None)
settings.register_profile("dev", COMMON, max_examples=30)
settings.register_profile("ci", COMMON, max_examples=100, derandomize=True, database=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "dev"))
