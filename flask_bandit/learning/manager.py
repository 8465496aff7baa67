"""The face of this room: train a model from the log, judge it, deploy it if it is better.

Must not import Flask. Whatever it does, it does for all workers.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from ..analysis.paired import Paired
from ..bandits import Bandit
from ..control import Control
from ..engine import Engine
from ..errors import ConfigurationError, LifecycleError, UnknownBanditError
from ..plugins import nearest
from .backup import back_up
from .books import PATIENCE, Books, loaded
from .data import HeldOut, LogPart, TrainingData, mature_until, public_features
from .fitted import Fitted
from .gate import Look, NotYetError, error_rate, judge, look, obstacle, served
from .jobs import Lease, at_work, dead_job, stop
from .records import (
    DEPLOY,
    DONE,
    EVALUATE,
    REFUSED,
    REPLACED,
    ROLLED_BACK,
    TRAIN,
    EvaluationRecord,
    Index,
    Job,
    ModelRecord,
)
from .trainers import Trainer, document_of, trainer_from
