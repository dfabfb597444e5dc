"""The number of unreadable images at which a build stops."""

from collections.abc import Sequence

from latentscale.building.build_options import BuildOptions
from latentscale.errors import UserError
from latentscale.sources.listing import Problem
from latentscale.wording import counted


def check_damage(problems: Sequence[Problem], options: BuildOptions) -> None:
    """Stop the build when more images are unreadable than the options allow.

    Raises:
        UserError: too many are unreadable; the message names an image.
    """
    if not problems:
        return
    if options.on_error == "fail":
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise UserError(
            f"{problems[0]}{more}: fix it and run the command again, or leave out such images with --on-error skip"
        )
    if len(problems) > options.max_errors:
        raise UserError(
            f"{counted(len(problems), 'image')} cannot be used, more than --max-errors {options.max_errors} allows; "
            f"{problems[0]}; {problems[-1]}"
        )
