"""Numbers that a launcher or the user puts into the environment."""

import os
import re

from latentscale.errors import UserError
from latentscale.wording import shown


def integer_from_environment(name: str, default: int, *, minimum: int = 0, maximum: int) -> int:
    """An integer that a launcher or the user has put into the environment; the default if it is unset or empty.

    Raises:
        UserError: it is not an integer in the range; names the variable.
    """
    text = os.environ.get(name, "").strip()
    if not text:
        return default
    # int() would also take underscores, other scripts' digits and any number of them
    if re.fullmatch("[0-9]{1,19}", text) and minimum <= int(text) <= maximum:
        return int(text)
    raise UserError(
        f"{name}={shown(text)} in the environment must be an integer from {minimum} to {maximum}: correct or unset it"
    )
