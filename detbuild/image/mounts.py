"""Paths shared by the Dockerfile template, the plan and the host settings."""

from __future__ import annotations

from typing import Final

SECRETS_DIR: Final = "/run/secrets"
WHEELS_DIR: Final = "/build/wheels"
FRAMEWORK_DIR: Final = "/build/framework"
PIP_CONF: Final = "pip.conf"
CA: Final = "ca.pem"
CONSTRAINTS: Final = "constraints.txt"
ENVIRONMENT: Final = "environment"  # proxies and credentials, as a shell reads them
SECRETS: Final = (PIP_CONF, CA, CONSTRAINTS, ENVIRONMENT)
