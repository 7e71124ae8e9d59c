"""The server that KServe runs: numpy, scipy, soundfile and kserve, and of spira only ``audio``, ``inference``
and ``signature``.

    python -m spira.serving --model-dir DIR --model-name spira --http-port 8080

``DIR`` is a package, or the MLflow artifacts of one. Modules, in the order in which a request passes them:

    connections limits the number of connections, and the time and size of the headers
    guard       admission control: limits the number and the size of requests, answers 429 beyond
    headers     strict parsing of the headers that decide how a body is read
    server      the application with KServe's routes, its readiness and its graceful shutdown
    detector    the ``kserve.Model``: runs messages and package in threads
    bodies      request bodies, inflated and parsed to JSON within limits on memory
    messages    JSON of both protocols to WAV bytes; predictions to responses
    tensors     the input tensor of v2 to WAV bytes
    package     the model, loaded from a package after its files and golden recordings are checked
    errors      responses for refused requests: status, code, message
    memory      settings of the C library's memory allocator
"""

import os

# One core computes one recording: the threads of this process share the cores. numpy reads the variable when it is
# imported, so it is set before any import of numpy.
os.environ.setdefault("OMP_NUM_THREADS", "1")
