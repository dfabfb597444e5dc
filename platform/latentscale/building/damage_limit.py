"""When images that cannot be taken end a build."""

from collections.abc import Sequence

from latentscale.building.build_options import BuildOptions
from latentscale.errors import UserError
from latentscale.sources.listing import Problem
from latentscale.wording import counted


def check_damage(problems: Sequence[Problem], options: BuildOptions) -> None:
    """Stop where more cannot be taken than was allowed.

    Raises:
        UserError: naming the image.
    """
    if not problems:
        return
    if options.on_error == "fail":
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise UserError(
            f"{problems[0]}{more}: mend it and run the command again, or leave such images out with --on-error skip"
        )
    if len(problems) > options.max_errors:
        raise UserError(
            f"{counted(len(problems), 'image')} cannot be taken, more than --max-errors {options.max_errors} allows; "
            f"{problems[0]}; {problems[-1]}"
        )
