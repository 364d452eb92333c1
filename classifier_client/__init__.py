"""A client of the image classification service: ``docs/client.md`` shows what it can do."""

from classifier_client.answers import Health, Job, Model, Prediction, Result, Status
from classifier_client.async_classifier import AsyncClassifier
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
    "Classifier",
    "ClassifierError",
    "Health",
    "ImageSource",
    "Job",
    "Model",
    "NotFinishedError",
    "Outcome",
    "Prediction",
    "ProblemError",
    "Result",
    "Status",
    "UnreachableError",
]
