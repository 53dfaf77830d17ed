"""The one exception for mistakes that the person at the command line can mend."""

from collections.abc import Sequence


class UserError(ValueError):
    """A wrong flag, name, option or file.

    The message is one line: what was given, what is allowed, what to do. Programs print it on stderr and
    exit with code 2; any other exception is a defect of ours and keeps its traceback.
    """


def check_divisible(family: str, option: str, value: int, divisors: dict[str, int]) -> None:
    """Check that an option is a multiple of others, or of numbers that are their own names.

    Raises:
        UserError: it is not.
    """
    for name, divisor in divisors.items():
        if value % divisor:
            number = name if name.isdigit() else f"{name}={divisor}"
            raise UserError(f"{family}: {option}={value} is given; it must be a multiple of {number}")


def check_sides(family: str, option: str, value: Sequence[int]) -> None:
    """Check that an option is a height and a width, both from 1 on.

    Raises:
        UserError: it is not.
    """
    if len(value) != 2 or min(value) < 1:
        given = ",".join(map(str, value))
        raise UserError(f"{family}: {option}={given} is given; two sides are needed, as in {option}=8,8")
