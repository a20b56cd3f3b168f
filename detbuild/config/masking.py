"""Hides what is secret in a config that is shown or logged."""

from __future__ import annotations

from typing import Final

MASK: Final = "********"

# `*` stands for everything below.
_SECRETS: Final = (
    ("data", "secrets", "*"),
    ("checkpoint_storage", "access_key"),
    ("checkpoint_storage", "secret_key"),
    ("checkpoint_storage", "connection_string"),
    ("checkpoint_storage", "credential"),
    *(
        (section, "registry_auth", name)
        for section in ("environment", "task_container_defaults")  # the latter in the host's config
        for name in ("username", "password", "auth", "email", "identitytoken", "registrytoken")
    ),
)


def is_secret(path: tuple[str | int, ...]) -> bool:
    """Whether a value at this path of a config may not be shown, not even in an error."""
    return any(
        path == secret or (secret[-1] == "*" and path[: len(secret) - 1] == secret[:-1])
        for secret in _SECRETS
    )


def mask(config: dict[str, object]) -> dict[str, object]:
    """A copy of the config with every secret that is set replaced by asterisks."""
    return {key: _masked(value, (key,)) for key, value in config.items()}


def _masked(value: object, path: tuple[str | int, ...]) -> object:
    if isinstance(value, dict):
        return {key: _masked(item, (*path, key)) for key, item in value.items()}
    if isinstance(value, list):
        return [_masked(item, (*path, index)) for index, item in enumerate(value)]
    return MASK if value is not None and is_secret(path) else value
