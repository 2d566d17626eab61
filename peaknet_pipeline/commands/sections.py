"""A command group whose help lists its commands under headings."""

from collections.abc import Mapping
from typing import Any

import click


class SectionedGroup(click.Group):
    """A group of commands in named sections.

    Parameters
    ----------
    sections : mapping
        Heading to the commands under it, in the order in which help shows both.

    """

    def __init__(self, *args: Any, sections: Mapping[str, tuple[click.Command, ...]], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.sections = dict(sections)
        for commands in self.sections.values():
            for command in commands:
                self.add_command(command)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write each section with its commands' first sentences."""
        names = [str(command.name) for commands in self.sections.values() for command in commands]
        widest = max(len(name) for name in names)
        for heading, commands in self.sections.items():
            with formatter.section(heading):
                formatter.write_dl(
                    [(str(c.name).ljust(widest), c.get_short_help_str(limit=200)) for c in commands]
                )
