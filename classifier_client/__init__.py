"""A client of the image classification service: ``docs/client.md`` shows what it can do."""

from classifier_client.answers import Health, Job, ListedJob, Model, Prediction, Result, Status
from classifier_client.async_classifier import AsyncClassifier
from classifier_client.batch_answers import Batch, BatchJob, BatchResult, BatchStatus
from classifier_client.calls import Outcome
from classifier_client.classifier import Classifier
from classifier_client.errors import (
    ClassifierError,
    NotFinishedError,
    ProblemError,
    UnreachableError,
)
from classifier_client.images import ImageSource

__all__ = [
    "AsyncClassifier",
    "Batch",
    "BatchJob",
    "BatchResult",
    "BatchStatus",
    "Classifier",
    "ClassifierError",
    "Health",
    "ImageSource",
    "Job",
    "ListedJob",
    "Model",
    "NotFinishedError",
    "Outcome",
    "Prediction",
    "ProblemError",
    "Result",
    "Status",
    "UnreachableError",
]
