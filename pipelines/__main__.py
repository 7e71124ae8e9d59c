"""The commands of this module moved: see ``spira pipeline --help``."""

import sys

sys.exit("python -m pipelines has moved: use `spira pipeline` (compile, submit, schedule, schedule-delivery, status)")
