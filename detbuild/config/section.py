"""What all sections of the config have in common: strict, closed, frozen, and their own rules with a place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Final

from pydantic import BaseModel, ConfigDict
from pydantic_core import PydanticCustomError

# Marks the members of a union in pydantic's error paths. No key of a config can start with NUL.
TAG: Final = "\0"


class Section(BaseModel):
    """A map with known keys. Every subclass is found again by its tag."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, defer_build=True)

    tagged: ClassVar[dict[str, type[Section]]] = {}

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: object) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        Section.tagged[TAG + cls.__name__] = cls


def wrong(what: str, *, at: Sequence[str | int] = (), mend: str = "") -> PydanticCustomError:
    """A rule is broken: raise this in a validator. `at` leads from the validated value to the culprit."""
    return PydanticCustomError("rule", "{what}", {"what": what, "mend": mend, "at": tuple(at)})


def choice(key: str, names: Sequence[str]) -> dict[str, object]:
    """The context of the error that a union gives when `key` names none of its members."""
    return {"key": key, "names": tuple(names)}
