"""Determined's client errors that detbuild raises."""

from __future__ import annotations


class APIException(Exception):  # noqa: N818  (Determined's own names)
    """The base class of the client's errors."""


class NotFoundException(APIException):
    """The experiment, trial, checkpoint or model does not exist."""
