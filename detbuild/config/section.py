"""The base of all sections of the config: strict, closed and frozen models."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Final

from pydantic import BaseModel, ConfigDict, Discriminator
from pydantic_core import PydanticCustomError

from detbuild.config.secrets import Mark
from detbuild.credentials import MASK

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

# Prefix of union members in pydantic's error paths; no key of a config can start with NUL.
TAG: Final = "\0"


class Section(BaseModel):
    """A map with known keys. `tagged` holds every subclass by its tag."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, defer_build=True)

    tagged: ClassVar[dict[str, type[Section]]] = {}

    def __repr_args__(self) -> Iterator[tuple[str | None, object]]:
        """Mask secret fields."""
        fields = type(self).model_fields
        for name, value in super().__repr_args__():
            marked = name in fields and any(isinstance(item, Mark) for item in fields[name].metadata)
            yield name, MASK if marked and value else value

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: object) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        Section.tagged[TAG + cls.__name__] = cls


def wrong(
    what: str,
    *,
    at: Sequence[str | int] = (),
    hint: str = "",
    later: bool = False,
    on_key: bool = False,
) -> PydanticCustomError:
    """Make the error of a broken rule, for a validator to raise.

    Args:
        what: the message for the user.
        at: the path from the validated value to the invalid one.
        hint: what to do.
        later: another source of the config may repair it, so one source alone is not rejected for it.
        on_key: the key is wrong, not its value.
    """
    context = {"what": what, "hint": hint, "at": tuple(at), "later": later, "on_key": on_key}
    return PydanticCustomError("rule", "{what}", context)


def discriminator(
    key: str, members: Mapping[str, type[BaseModel]], otherwise: type[BaseModel] | None = None
) -> Discriminator:
    """Select the member of a union by the value of `key`, or `otherwise` if the key is absent."""
    nameless = otherwise.model_fields if otherwise else ()  # if it has the key, null counts as absent

    def tag(value: object) -> str | None:
        if not isinstance(value, dict):
            return TAG + type(value).__name__
        name = value.get(key)
        absent = key not in value or (name is None and key in nameless)
        member = members.get(name) if isinstance(name, str) else None
        member = otherwise if absent else member
        return TAG + member.__name__ if member else None

    context: dict[str, str | int | float] = {"key": key, "names": ", ".join(members)}
    return Discriminator(
        tag, custom_error_type="choice", custom_error_message="choice", custom_error_context=context
    )
