"""The predictor that KServe runs: numpy, scipy and kserve only, nothing else of spira.

    python -m spira.serving --model-dir DIR --model-name spira --http-port 8080

``DIR`` is a package, or the MLflow artifacts made of one. A body goes this way, a module a step:

    guard       at most so many bodies, of so many bytes, at a time; past that 429 at once
    messages    a body of either protocol -> WAV bytes; probabilities -> the answer
    package     the package's own code, once its golden recordings came out right
    detector    the ``kserve.Model``: messages and package, in threads
    server      the application, its readiness, and an end that loses no request
    memory      how the process keeps it
    errors      what a client gets where it can't be answered: status, code, what to do
"""

import os

# One core a recording: threads of our own share the cores. Read when numpy is imported, so it is set here, first.
os.environ.setdefault("OMP_NUM_THREADS", "1")
