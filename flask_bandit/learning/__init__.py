"""Models from the log: train, judge on what was held out, deploy if better. Knows no Flask."""

from .backup import restore_models
from .data import TrainingData
from .fitted import Fitted
from .gate import NotYetError
from .jobs import JobStoppedError
from .manager import Deployment, ExperimentManager, HasEngine
from .records import EvaluationRecord, Job, ModelRecord
from .status import Status
from .trainers import Trainer

__all__ = [
    "Deployment",
    "EvaluationRecord",
    "ExperimentManager",
    "Fitted",
    "HasEngine",
    "Job",
    "JobStoppedError",
    "ModelRecord",
    "NotYetError",
    "Status",
    "Trainer",
    "TrainingData",
    "restore_models",
]
