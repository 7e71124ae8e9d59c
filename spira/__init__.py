"""SPIRA's detector of respiratory insufficiency: from recordings to a served, monitored model.

The map, top to bottom. A folder imports only what stands below it (``lint-imports`` checks this):

    cli          the ``spira`` command, one file a group of verbs
    delivery     the reconciler: it trains and serves when data, settings or code change
    stages       preprocess, train, evaluate, push, deploy: what a pipeline component calls
    deployment   targets that serve a release: a local folder, KServe, the Inference Service
    registry     MLflow: runs, model versions, aliases
    packaging    the package that is served, and its golden recordings
    paper        the paper's experiments and checkpoints
    evaluation   metrics, shortcut probes, the gate's verdict, the report
    training     a resumable training run
    data         from a data set to a corpus: stores, tables, decoding, quality
    models       the networks and their checkpoints
    features     noise, windows, MFCC, batches
    lineage      fingerprints of data, settings and code
    project      who answers for the models: owner, contact, licence
    config       every setting, once
    serving      the KServe server of a package
    signature    the signature beside a package, checked where a public key is configured
    audio        a recording of any format, decoded: the one policy of training, ``spira predict`` and the server
    inference    what a package computes with: numpy and scipy, Python 3.8 syntax

Beside them: ``stage_logging``, ``progress`` (records for a display), ``digests`` (damage in a folder is found),
``files`` (atomic writes, locks), ``temporary`` (what a killed process left is removed), ``jit`` (machine code),
``language`` (pages in English or Portuguese), ``kubernetes_connection`` and ``errors``.
"""

import math
import os

# Threads of torch, numpy and scikit-learn. The libraries read these variables when they are loaded, so they are set
# before any import of them, and they never override what the user or the image has set.
for name, value in {
    "OMP_WAIT_POLICY": "PASSIVE",  # idle threads sleep; spinning ones took the cores from the others on a busy machine
    "KMP_BLOCKTIME": "0",  # the same for Intel's OpenMP
}.items():
    os.environ.setdefault(name, value)
if request := os.environ.get("SPIRA_CPU_REQUEST"):  # a pod sees all cores of its node, but may count on its request
    cores = float(request.removesuffix("m")) / (1000 if request.endswith("m") else 1)
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, math.ceil(cores))))
