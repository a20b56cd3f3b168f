"""Determined's errors of its client, as far as something here still raises them."""

from __future__ import annotations


class APIException(Exception):  # noqa: N818  (Determined's own names)
    """The root of what a call of the client may raise in Determined."""


class NotFoundException(APIException):
    """There is no such experiment, trial, checkpoint or model."""
