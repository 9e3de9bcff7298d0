"""What a user of Ray Tune sees of a sweep: trials with names, configurations and reports, callbacks, stoppers."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ray.tune import Callback, ResultGrid, Stopper
from ray.tune.logger import JsonLoggerCallback

from sweeps.config.spec import Sweep
from sweeps.execution.ray_executor import RayExecutor
from sweeps.planning.missing import missing
from sweeps.planning.schedule import Schedule
from sweeps.planning.tasks import RunStudy
from sweeps.storage.record_log import read_trials
from sweeps.trials.scenario_cache import RunEnvironment
from tests.sweeps.conftest import Done
from tests.sweeps.tiny import lines, science, tiny
