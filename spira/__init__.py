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
    config       every setting, once
    serving      the KServe server of a package
    audio        a recording of any format, decoded: the one policy of training, ``spira predict`` and the server
    inference    what a package computes with: numpy and scipy, Python 3.8 syntax

Beside them: ``stage_logging``, ``files`` (atomic writes, locks), ``jit`` (machine code), ``kubernetes_connection`` and
``errors``.
"""
