"""SPIRA's detector of respiratory insufficiency, from recordings to a served model.

The flow, in order, a stage a line:

    recordings, corpus      a data set is validated, decoded and laid down as one mappable array
    noise, windows, features    tensor -> tensor: ward noise, 4 s windows, MFCC
    dataset, model, training    batches, the networks, a resumable training run
    prediction, evaluation  probabilities by file; metrics with confidence intervals; shortcut probes
    gates, report           a pre-registered verdict, and one page that explains it
    packaging, proof        a torch-free package with golden recordings, and the proof that it answers as torch does
    registry                MLflow versions and aliases
    deployment              the package answers where it is served, or is rolled back

``spira.inference`` is what is served: numpy and scipy only, Python 3.8 syntax, nothing of spira.
"""
