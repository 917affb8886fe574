"""`sdfrecon ...`: from arguments to a command and its exit status."""

from __future__ import annotations

import atexit
import gc
import os
import re
import shlex
import sys
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr
from dataclasses import dataclass
from io import StringIO, TextIOWrapper
from typing import Annotated, Any

import tyro
from tyro.conf import OmitSubcommandPrefixes, subcommand

from sdfrecon import __version__, commands, image_commands, options, showing
from sdfrecon.geometry import InputError
from sdfrecon.options import Compare, Demo, Info, MeshCommand, Query, Reconstruct, Report, View

SPINS = "2000"
"""How often a thread of torch's that waits for another looks before it sleeps: 300,000 times if nobody says, in which
time a core is kept from the thread that is waited for wherever something else runs, too."""
ImageCommand = (
    Annotated[options.ImageFit, subcommand("fit")]
    | Annotated[options.ImageRender, subcommand("render")]
    | Annotated[options.ImageDerivatives, subcommand("derivatives")]
    | Annotated[options.ImagePoisson, subcommand("poisson")]
    | Annotated[options.ImageBlend, subcommand("blend")]
    | Annotated[options.ImageActivations, subcommand("activations")]
)


@dataclass(frozen=True)
class Image:
    """Images as fields: fit, render, differentiate, rebuild from derivatives, blend, compare networks."""

    task: OmitSubcommandPrefixes[ImageCommand]


Command = (
    Reconstruct | Annotated[MeshCommand, subcommand("mesh")] | Query | Compare | Info | Report | View | Image | Demo
)


def alone() -> None:
    """Settles how a process that does nothing else waits for its threads, and looks for garbage: seldom.

    Among all that torch brings that takes half a second at its import, and as much again at the exit.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", SPINS)
    gc.set_threshold(20_000, 20, 20)
    atexit.register(gc.freeze)


def main(args: Sequence[str] | None = None) -> None:
    """The console script. Exits with 2 and one line for bad input, 130 after Ctrl-C, but where that ends a view."""
    # Closed by who started it, they are None: what is said would go elsewhere, or fail.
    sys.stdout, sys.stderr = (stream or open(os.devnull, "w") for stream in (sys.stdout, sys.stderr))  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # names of files may be in whatever they are in
            stream.reconfigure(errors="backslashreplace")
    if args is None:
        alone()
    run: dict[type, Callable[[Any], None]] = {
        Reconstruct: commands.reconstruct,
        MeshCommand: commands.mesh,
        Query: commands.query,
        Compare: showing.compare,
        Info: showing.info,
        Report: showing.report,
        View: showing.view,
        Demo: commands.demo,
        options.ImageFit: image_commands.fit,
        options.ImageRender: image_commands.render,
        options.ImageDerivatives: image_commands.derivatives,
        options.ImagePoisson: image_commands.poisson,
        options.ImageBlend: image_commands.blend,
        options.ImageActivations: image_commands.activations,
    }
    try:
        if (command := _asked(sys.argv[1:] if args is None else list(args))) is not None:
            task = command.task if isinstance(command, Image) else command
            run[type(task)](task)
        sys.stdout.flush()
    except BrokenPipeError:  # who read it has gone, as `head` does
        _drop_output()
        sys.exit(1)
    except InputError as error:
        sys.exit(_fail(str(error)))
    except OSError as error:
        if error.filename is None:
            _drop_output()
        sys.exit(_fail(f"{error.filename or 'standard output'}: {error.strerror or error}: choose another place"))
    except (MemoryError, RuntimeError) as error:
        # torch reports a lack of memory, on the CPU and on a GPU, as RuntimeErrors that say so.
        if re.search("CUDA.*out of memory|CUBLAS_STATUS_(ALLOC|NOT_INIT)", str(error)):
            sys.exit(_fail("not enough memory on the GPU: free some of it, or pass --device cpu"))
        if isinstance(error, MemoryError) or re.search("(out of|allocate|not enough) memory", str(error)):
            sys.exit(_fail("not enough memory: lower --resolution or --size, or take fewer points or pixels"))
        raise
    except OverflowError:
        sys.exit(_fail("a number is too large, or too small, to be computed with: give another"))
    except KeyboardInterrupt:
        print("\nsdfrecon: stopped", file=sys.stderr)
        sys.exit(130)


def _asked(args: list[str]) -> Any:
    """The command that arguments name, None where what they ask for is printed: help, or the version. Exits with 2."""
    if args == ["--version"]:
        print(f"sdfrecon {__version__}")
        return None
    said = StringIO()
    try:
        with redirect_stderr(said):
            return tyro.cli(
                Command,
                prog="sdfrecon",
                description="Turn a scan (points with normals) into a clean mesh and a signed distance field.",
                args=args,
                config=(tyro.conf.FlagCreatePairsOff, tyro.conf.PositionalMetavarFromFieldName, tyro.conf.DisallowNone),
            )
    except SystemExit as stopped:
        if not stopped.code:
            return None
        first, message = next(iter(args), ""), _in_one_line(said.getvalue())
        if os.path.isfile(first) and "." in first:  # no command's name has one
            message = (
                f"expected a command, got the file {first}: try `sdfrecon reconstruct {shlex.quote(first)}`, or --help"
            )
        sys.exit(_fail(message))


def _in_one_line(box: str) -> str:
    """What tyro says in a box of many lines: its first part, up to a rule, and its best guess."""
    lines, told = [line.strip(" |+│╭╮╰╯") for line in box.splitlines()[1:]], list[str]()
    for text in lines:
        if text == "Got errors:" or (told and not text.strip("-─")):
            break
        told += text.strip("-─").split()
    said, whole = " ".join(told).rstrip("."), " ".join(lines)
    said = re.sub(r"no type matching {?(.*?)}? could be instantiated from \[(.*)\]", r"expected \1; got \2", said)
    meant, asked = re.search(r"Perhaps you meant: +(--\S+)", whole), re.search(r"run:? +(sdfrecon .*?--help)", whole)
    return f"{said}: {f'did you mean {meant[1]}? ' if meant else ''}see {asked[1] if asked else '--help'}"


def _drop_output() -> None:
    """What is still to be written to standard output must not fail at the exit too."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _fail(message: str) -> int:
    print(f"sdfrecon: error: {message}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    main()
