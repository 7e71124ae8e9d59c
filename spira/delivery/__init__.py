"""Continuous delivery: a change in data, model or code is trained, evaluated and served without a person.

The reconciler is level-triggered. Each tick observes the current state (data, settings and code; runs, model
repository and targets), compares it with the ledger and does the next action. Events only bring a tick forward, and
a tick may be killed at any point.

    settings            the settings file, delivery.yaml
    observation/        what is there now
        fingerprints    digests of data, model and code, and what changed between two observations
        observe         the current fingerprints, read from the data, the settings and the sources
        data_axes       the files behind a data digest, for the difference between two data sets
    history/            what happened
        events, ledger  append-only record of observations, runs, verdicts and releases
        ledger_check    what to do about a damaged ledger
        state           the state that the records of the ledger add up to
        beside_ledger   small files beside it, with checksums
        last_problems   the last problem, until it is solved
    decide              (observation, state, runs, champion, targets, time) -> next actions; a pure function
    reconcile           carries the actions out through a runner, a model repository and the targets
    training_request    everything a run needs to train one observation
    runner, repository  protocol of the training runner; the model repository on MLflow
    operator_commands   pin, unpin, roll back, approve, retry
    status, explain     what is going on; why a run started, what happened, what served when
    conditions, kubernetes_status    the status as a resource of the cluster
    notices/, page/                  notices to a team; a page for people
    wording, links                   words and addresses that both use
    background                       work beside the ticks, which cannot delay or fail them
    recurring_tick, webhooks         a tick as a pipeline task; HTTP calls that bring a tick forward, and the page
    reproduce           trains a version again and compares the weights
"""
