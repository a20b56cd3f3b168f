"""What a context declares that it needs, checked before anything is built."""

from __future__ import annotations

import difflib
import posixpath
from typing import TYPE_CHECKING, Final

from detbuild.context.snapshot import shown
from detbuild.errors import ContextError
from detbuild.events import Warned
from detbuild.image.requirements import REQUIREMENTS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from detbuild.context.listing import LeftOut, Listing
    from detbuild.image.requirements import Finding, Requirements

_SHOWN: Final = 20  # findings in one message


def check_requirements(
    requirements: Requirements, listing: Listing, *, own_image: bool = False
) -> tuple[Warned, ...]:
    """Return what is doubtful about requirements.txt.

    Args:
        requirements: What was read.
        listing: What of the context goes into the image, and why the rest does not.
        own_image: Absolute paths may be in the user's own image.

    Raises:
        ContextError: pip would refuse a line; the message names each with its file and line.
    """
    refused = [f for f in requirements.problems if not (f.outside and own_image)]
    if refused:
        raise _refusal(refused, listing)
    doubts = (Warned(_cause(doubt, listing), _hint(doubt, listing)) for doubt in requirements.doubts)
    return (*_left_out(requirements), *doubts, *_ignored(listing))


def _refusal(findings: list[Finding], listing: Listing) -> ContextError:
    lines = [_cause(finding, listing) for finding in findings]
    if len(lines) > _SHOWN:
        lines = [*lines[:_SHOWN], f"... and {len(lines) - _SHOWN} more"]
    hints = dict.fromkeys(filter(None, (_hint(finding, listing) for finding in findings)))
    return ContextError("\n".join(lines), mend="; ".join(list(hints)[:3]))


def _cause(finding: Finding, listing: Listing) -> str:
    rule = _rule(finding, listing)
    cause = finding.cause
    if rule is not None:
        why = f"{shown(rule.where)} (`{shown(rule.rule)}`)" if rule.rule else rule.where
        cause = f"{cause.removesuffix(' is not in the context')} is left out of the image by {why}"
    return f"{shown(finding.line.place)}: {shown(cause)}"


def _hint(finding: Finding, listing: Listing) -> str:
    if finding.mend or finding.missing is None:
        return finding.mend
    rule = _rule(finding, listing)
    if rule is not None:
        built_in = rule.where == "built in"
        return f"add `!{shown(rule.path)}` to .detignore" if built_in else "remove that line of .detignore"
    names = [kept.path for kept in listing.kept if kept.path != finding.line.file]
    same_name = [path for path in names if posixpath.basename(path) == posixpath.basename(finding.missing)]
    near = same_name or difflib.get_close_matches(finding.missing, names, n=1, cutoff=0.7)
    if near and finding.line.editable != near[0]:
        return f"did you mean `{shown(near[0])}`?"
    return "add it to the context, or remove the line"


def _rule(finding: Finding, listing: Listing) -> LeftOut | None:
    """What keeps a path out of the image that is there on this host."""
    path = finding.missing
    if not path:
        return None
    return next((out for out in listing.left_out if f"{path}/".startswith(f"{out.path.rstrip('/')}/")), None)


def _left_out(requirements: Requirements) -> Iterator[Warned]:
    for requirement in requirements.left_out:
        named = requirement.line.argument or requirement.line.editable
        yield Warned(
            f"{shown(requirement.line.place)}: `{shown(named)}` is not installed: the image has the "
            "Trial API of detbuild in its place",
            f"remove the line from {shown(requirement.line.file)}",
        )


def _ignored(listing: Listing) -> Iterator[Warned]:
    """requirements.txt itself among what stays out."""
    for out in listing.left_out:
        if out.path == REQUIREMENTS and out.rule:
            yield Warned(
                f"{REQUIREMENTS} is left out of the image by {shown(out.where)} (`{shown(out.rule)}`), "
                "so nothing of it is installed",
                f"remove that line of .detignore, or {REQUIREMENTS}",
            )
