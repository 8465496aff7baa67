"""Models from the log: train, judge on what was held out, deploy if better. Knows no Flask."""

from .gate import NotYetError
from .jobs import JobStoppedError
from .manager import Deployment, ExperimentManager
from .records import EvaluationRecord, Job, ModelRecord
from .status import Status

__all__ = [
    "Deployment",
    "EvaluationRecord",
    "ExperimentManager",
    "Job",
    "JobStoppedError",
    "ModelRecord",
    "NotYetError",
    "Status",
]
