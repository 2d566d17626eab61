"""The files that a command reads and writes, declared with its options, and checked for all commands at one place."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from peaknet_pipeline.faults import faults_explained

if TYPE_CHECKING:
    from peaknet_pipeline.store.outputs import Output

Others = Callable[[Path, Mapping[str, Any]], "Iterable[Output]"]
"""Gives the files that are written beside an output, or into an output folder, from its path and the command's parameters."""


class Input(click.Path):
    """A file or folder that a command reads and never changes."""

    def __init__(self) -> None:
        super().__init__(path_type=Path)


class Source(click.ParamType):
    """A file or folder, or the address of a socket, that a command reads."""

    name = "source"


class OutputFile(click.Path):
    """A file that a command writes.

    Parameters
    ----------
    suffixes : str
        Endings that go with what is written.
    beside : callable, optional
        Gives the other files that are written with it.

    """

    def __init__(self, *suffixes: str, beside: Others | None = None) -> None:
        super().__init__(path_type=Path)
        self.suffixes, self._beside = suffixes, beside

    def outputs(self, path: Path, parameters: Mapping[str, Any]) -> "Iterator[Output]":
        """Yield everything that is written when the option has this value."""
        from peaknet_pipeline.store.outputs import Output

        yield Output(path, self.suffixes)
        yield from self.others(path, parameters)

    def others(self, path: Path, parameters: Mapping[str, Any]) -> "Iterable[Output]":
        """Return what is written with it."""
        return self._beside(path, parameters) if self._beside is not None else ()


class OutputFolder(OutputFile):
    """A folder that a command writes files into; it is made where there is none."""

    def outputs(self, path: Path, parameters: Mapping[str, Any]) -> "Iterator[Output]":
        """Yield the files that will lie in the folder."""
        yield from self.others(path, parameters)


class NewFilesFolder(click.Path):
    """A folder that a command puts new files into, and never replaces one there."""

    def __init__(self) -> None:
        super().__init__(path_type=Path, file_okay=False, exists=True)


class FileCommand(click.Command):
    """A command whose outputs are checked before it begins; with outputs it takes ``--force``."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        names = {parameter.name for parameter in self.params}
        self._adds_force = "force" not in names and any(isinstance(p.type, OutputFile) for p in self.params)
        if self._adds_force:
            told = "Replace existing files that this command did not make."
            self.params.append(click.Option(["--force"], is_flag=True, help=told))

    def invoke(self, ctx: click.Context) -> Any:
        """Check the outputs, then run the command.

        Raises
        ------
        OutputError
            An output would destroy an input or another's file, or cannot be written.

        """
        outputs = list(self.outputs(ctx.params))
        force = ctx.params.pop("force") if self._adds_force else ctx.params.get("force", False)
        if outputs:
            from peaknet_pipeline.store.outputs import check_outputs

            check_outputs(outputs, self.inputs(ctx.params), command=f"peaknet {self.name}", force=force)
        with faults_explained(self.inputs(ctx.params)):
            return super().invoke(ctx)

    def outputs(self, values: Mapping[str, Any]) -> "Iterator[Output]":
        """Yield everything that the command writes with these parameters."""
        for parameter in self.params:
            if isinstance(parameter.type, OutputFile) and values.get(str(parameter.name)) is not None:
                yield from parameter.type.outputs(values[str(parameter.name)], values)

    def inputs(self, values: Mapping[str, Any]) -> Iterator[Path]:
        """Yield everything that the command reads with these parameters, files named by ``--set`` included."""
        for parameter in self.params:
            if isinstance(parameter.type, Input | Source):
                value = values.get(str(parameter.name))
                yield from (Path(one) for one in (value if isinstance(value, tuple) else (value,)) if one)
        for setting in values.get("settings", ()):
            words = setting.partition("=")[2].split(",")
            yield from (Path(word) for word in words if Path(word).is_file())


def command(name: str | None = None) -> Callable[[Callable[..., Any]], FileCommand]:
    """Declare a ``peaknet`` command; the decorator that every command uses."""
    return click.command(name, cls=FileCommand)


def geometry_beside(path: Path, _: Mapping[str, Any]) -> "Iterator[Output]":
    """Yield the ``.geom`` that is written beside a CXI file."""
    from peaknet_pipeline.store.outputs import Output

    yield Output(path.with_suffix(".geom"))
