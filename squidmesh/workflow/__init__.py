"""Authoring: a workflow is a class body made of these words, or a dictionary of the same facts."""

from squidmesh.domain.definition import RetryPolicy
from squidmesh.workflow.classes import Workflow
from squidmesh.workflow.declarations import (
    Compensation,
    Complete,
    Path,
    Retry,
    Route,
    StepDeclaration,
    TriggerDeclaration,
    When,
    approval,
    compensation,
    cron,
    log,
    manual,
    path,
    pause,
    step,
    wait,
    when,
)
from squidmesh.workflow.definition import WorkflowDefinition

__all__ = [
    "Compensation",
    "Complete",
    "Path",
    "Retry",
    "RetryPolicy",
    "Route",
    "StepDeclaration",
    "TriggerDeclaration",
    "When",
    "Workflow",
    "WorkflowDefinition",
    "approval",
    "compensation",
    "cron",
    "log",
    "manual",
    "path",
    "pause",
    "step",
    "wait",
    "when",
]
