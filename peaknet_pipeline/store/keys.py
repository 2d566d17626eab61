"""Partition keys ``<experiment>-r0001``: the one place that parses and formats them."""

import re
from dataclasses import dataclass

from peaknet_pipeline.errors import ParameterError

_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}?"
_KEY = re.compile(rf"(?P<experiment>{_NAME})-r(?P<number>[0-9]{{4,6}})")


@dataclass(frozen=True)
class RunKey:
    """One run of one experiment."""

    experiment: str
    number: int

    def __str__(self) -> str:
        """Return the partition key."""
        return f"{self.experiment}-r{self.number:04d}"


def parse_key(text: str) -> RunKey:
    """Read a partition key.

    Raises
    ------
    ParameterError
        The text is not ``<experiment>-r<4 to 6 digits>`` with letters, digits, ``.``, ``_`` and ``-`` in the experiment.

    """
    match = _KEY.fullmatch(text)
    if match is None or "..." in text:
        raise ParameterError("not a run key", expected="<experiment>-r0001", found=repr(text))
    return RunKey(match["experiment"], int(match["number"]))
