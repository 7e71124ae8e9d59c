"""Continuous delivery: a change in data, model or code trains, is judged, and serves, by itself.

A level-triggered reconciler. Each tick looks at what is (data, settings, code; runs, model repository, what
serves), compares it with what the ledger says was done, and does the next thing; a lost, doubled or late event does
no harm, and a tick may be killed anywhere.

    axes                what is observed: fingerprints of data, model and code, and what changed in them
    ledger              the append-only record of all that was seen, claimed, decided and done
    state               what the ledger adds up to
    decide              (observed, state, runs, registry, serving, now) -> the next thing to do; pure
    reconcile           does it, by a runner, a model repository and the targets
"""
