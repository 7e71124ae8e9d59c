"""A pointer to ``spira pipeline``, which has the commands of this module."""

import sys

sys.exit("python -m pipelines has moved: use `spira pipeline` (compile, submit, schedule, schedule-delivery, status)")
