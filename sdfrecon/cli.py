"""`sdfrecon ...`: from arguments to a command and its exit status."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import tyro
from tyro.conf import subcommand

from sdfrecon import commands
from sdfrecon.geometry import InputError
from sdfrecon.options import Compare, Demo, Info, MeshCommand, Query, Reconstruct

Command = (
    Annotated[Reconstruct, subcommand("reconstruct")]
    | Annotated[MeshCommand, subcommand("mesh")]
    | Annotated[Query, subcommand("query")]
    | Annotated[Compare, subcommand("compare")]
    | Annotated[Info, subcommand("info")]
    | Annotated[Demo, subcommand("demo")]
)


def main(args: Sequence[str] | None = None) -> None:
    """The console script. Exits with 2 and one line for bad input, 130 after Ctrl-C."""
    command = tyro.cli(
        Command,
        prog="sdfrecon",
        description="Turn a scan (points with normals) into a clean mesh and a signed distance field.",
        args=args,
        config=(tyro.conf.FlagCreatePairsOff,),
    )
    run: dict[type, Callable[[Any], None]] = {
        Reconstruct: commands.reconstruct,
        MeshCommand: commands.mesh,
        Query: commands.query,
        Compare: commands.compare,
        Info: commands.info,
        Demo: commands.demo,
    }
    try:
        run[type(command)](command)
    except InputError as error:
        sys.exit(_fail(str(error)))
    except (MemoryError, RuntimeError, ArithmeticError) as error:
        # torch reports a lack of memory, on the CPU and on a GPU, as RuntimeErrors that say so.
        if isinstance(error, MemoryError) or "memory" in str(error):
            sys.exit(_fail("not enough memory: lower --resolution, or give the scan fewer points"))
        if type(error).__name__ != "Diverged":
            raise
        sys.exit(_fail(str(error)))
    except KeyboardInterrupt:
        print("\nsdfrecon: stopped", file=sys.stderr)
        sys.exit(130)


def _fail(message: str) -> int:
    print(f"sdfrecon: error: {message}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    main()
