"""The rules of workflows, as pure functions over frozen values."""
