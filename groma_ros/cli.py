"""The command `groma` with its subcommands. Heavy modules are imported only after the subcommand is known."""

from __future__ import annotations

import argparse
import difflib
import importlib
import itertools
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

DEBUG = "--debug"


@dataclass(frozen=True)
class Command:
    """A subcommand of `groma`."""

    module: str
    """A module of groma_ros.commands, or `module:NAME` for an object in one, with `add_arguments(parser)` and
    `run(args)`, which returns the exit status."""
    help: str
    """Description in one line."""
    example: str
    """A command line that works in a checkout."""
    locks_out: bool = False
    """Whether --out is a folder that only one process at a time may write to."""

    def load(self) -> Any:
        """Import the module, or the object in it, that has `add_arguments` and `run`."""
        module, _, name = self.module.partition(":")
        found = importlib.import_module(module)
        return getattr(found, name) if name else found


COMMANDS = {
    "ground": Command(
        "groma_ros.commands.ground",
        "ground goals in pictures",
        "groma ground --image demo/frame.png --goal 'the red mug' --goal 'all the boxes' --out "
        "out/answer.png",
    ),
    "eval scenes": Command(
        "groma_ros.commands.eval_rendered:SCENES",
        "measure a model on rendered scenes with truth",
        "groma eval scenes --model engines/groma-tiny --seed 77 --count 100 --json",
        locks_out=True,
    ),
    "eval robustness": Command(
        "groma_ros.commands.eval_rendered:ROBUSTNESS",
        "measure a model on degraded pictures and unfamiliar words",
        "groma eval robustness --model engines/groma-tiny --seed 77 --count 50 --conditions "
        "usual,blur,unheard",
        locks_out=True,
    ),
    "eval presence": Command(
        "groma_ros.commands.eval_presence",
        "measure how well a model recognises absent goals",
        "groma eval presence --model engines/groma-tiny --seed 77 --count 200 --plot out/reliability.svg",
        locks_out=True,
    ),
    "eval rec": Command(
        "groma_ros.commands.eval_expressions:REC",
        "referring expressions: RefCOCO, RefCOCO+, RefCOCOg",
        "groma eval rec --model engines/groma-7b --data refcoco --images coco/train2017 --split "
        "val,testA,testB --out out/refcoco",
        locks_out=True,
    ),
    "eval lvis-ground": Command(
        "groma_ros.commands.eval_datasets:LVIS_GROUND",
        "average recall of all objects of a class: LVIS-Ground",
        "groma eval lvis-ground --model engines/groma-7b --data lvis_test.json --images coco --paper "
        "--out out/lvis",
        locks_out=True,
    ),
    "eval caption": Command(
        "groma_ros.commands.eval_datasets:CAPTION",
        "descriptions of regions: Visual Genome, RefCOCOg",
        "groma eval caption --model engines/groma-7b --data vg_test.json --images vg --dataset vg --out "
        "out/vg",
        locks_out=True,
    ),
    "eval chat": Command(
        "groma_ros.commands.eval_datasets:CHAT",
        "grounded answers for a judge: LLaVA-COCO",
        "groma eval chat --model engines/groma-7b --data qa90_questions.jsonl --images coco/val2014 "
        "--truth instances.json --out out/chat",
        locks_out=True,
    ),
    "eval grec": Command(
        "groma_ros.commands.eval_expressions:GREC",
        "expressions for none, one or several objects: gRefCOCO",
        "groma eval grec --model engines/groma-7b --data grefcoco --images coco/train2014 --split val",
        locks_out=True,
    ),
    "eval absence": Command(
        "groma_ros.commands.eval_expressions:ABSENCE",
        "one box or none: GroundingME, RefCOCOg_rej",
        "groma eval absence --model engines/groma-7b --data groundingme.jsonl --images groundingme",
        locks_out=True,
    ),
    "eval concepts": Command(
        "groma_ros.commands.eval_expressions:CONCEPTS",
        "all objects of a noun phrase, or none: SA-Co",
        "groma eval concepts --model engines/groma-tiny --data out/scenes/saco.json --images out/scenes",
        locks_out=True,
    ),
    "eval tracking": Command(
        "groma_ros.commands.eval_tracking",
        "measure tracking between answers of a slow language model",
        "groma eval tracking --model engines/groma-tiny --seed 5100 --count 5 --latency 1",
        locks_out=True,
    ),
    "calibrate": Command(
        "groma_ros.commands.calibrate",
        "fit presence and scores to scenes with truth",
        "groma calibrate --model engines/groma-tiny --seed 8 --count 400",
        locks_out=True,
    ),
    "eval depth": Command(
        "groma_ros.commands.eval_rendered:DEPTH",
        "measure 3D boxes on rendered scenes with truth",
        "groma eval depth --seed 77 --count 100 --model engines/groma-tiny --json",
        locks_out=True,
    ),
    "eval precisions": Command(
        "groma_ros.commands.eval_rendered:PRECISIONS",
        "compare the precisions of a model on rendered scenes",
        "groma eval precisions --model engines/groma-tiny --seed 2026 --count 200",
        locks_out=True,
    ),
    "bench": Command(
        "groma_ros.commands.bench",
        "measure the duration of a frame, stage by stage",
        "groma bench --backend onnx,torch --goals 1,10 --json",
    ),
    "replay": Command(
        "groma_ros.commands.replay",
        "replay bags and compare with a stored run",
        "groma replay demo/tabletop.mcap --goals demo/goals.yaml --truth demo/truth.json",
    ),
    "live": Command(
        "groma_ros.commands.live",
        "show the model's answers live in the browser",
        "groma live --source demo/tabletop.mcap --goal 'the red mug'",
    ),
    "models": Command(
        "groma_ros.commands.models",
        "list the models on this machine",
        "groma models --json",
    ),
    "doctor": Command(
        "groma_ros.commands.doctor",
        "check what this machine lacks to run a model",
        "groma doctor --model groma-tiny",
    ),
    "fetch": Command(
        "groma_ros.commands.fetch",
        "download a published model",
        "groma fetch groma-7b",
    ),
    "convert": Command(
        "groma_ros.commands.convert",
        "make a model that runs without PyTorch",
        "groma convert engines/groma-tiny",
    ),
    "build-engine": Command(
        "groma_ros.commands.build_engine",
        "build TensorRT engines for this machine's GPU",
        "groma build-engine --model engines/groma-tiny --check",
    ),
    "verify": Command(
        "groma_ros.commands.verify",
        "check a model: recorded tensors of the original, or a bundle against itself",
        "groma verify groma-tiny",
    ),
    "licences": Command(
        "groma_ros.commands.licences",
        "list the licences of the installed packages",
        "groma licences --json",
    ),
    "scenes": Command(
        "groma_ros.commands.scenes",
        "render scenes with truth and goals",
        "groma scenes --seed 5 --count 100 --out out/scenes",
        locks_out=True,
    ),
    "train": Command(
        "groma_ros.commands.train",
        "train a small Groma on rendered scenes",
        "groma train --config config/train_tiny.yaml --out runs/tiny --resume",
    ),
}


class _Parser(argparse.ArgumentParser):
    """An argument parser that reports errors in one sentence."""

    def error(self, message: str) -> NoReturn:
        from groma_ros.errors import printable

        self.exit(2, f"{self.prog}: {printable(message)}; see {self.prog} --help.\n")


def main() -> None:
    """Entry point of `groma`; exits with the subcommand's status.

    Errors reach the user as one sentence; with `--debug` the traceback is printed before it.
    """
    debug = DEBUG in sys.argv[1:]
    try:
        status = _run([argument for argument in sys.argv[1:] if argument != DEBUG])
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        sys.exit(1)
    except Exception as error:
        if debug:
            traceback.print_exc()
        from groma_ros.errors import sentence

        status = _fail(sentence(error))
    sys.exit(status)


def _run(arguments: Sequence[str]) -> int:
    name, rest = _choose(arguments)
    command = COMMANDS[name]
    module = command.load()
    parser = _Parser(
        prog=f"groma {name}",
        description=command.help[0].upper() + command.help[1:] + ".",
        epilog=f"example: {command.example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    module.add_arguments(parser)
    parser.add_argument(DEBUG, action="store_true", help="show the traceback of an error")
    run: Callable[[argparse.Namespace], int] = module.run
    args = parser.parse_args(rest)
    if not command.locks_out or getattr(args, "out", None) is None:
        return run(args)
    from groma_ros.folder_lock import folder_lock

    with folder_lock(args.out):
        return run(args)


def _choose(arguments: Sequence[str]) -> tuple[str, list[str]]:
    """The subcommand's name, of one or two words, and the arguments after it.

    Exits with status 0 after the version or a help that was asked for, with 2 if no command is named.
    """
    for words in (1, 2):
        name = " ".join(arguments[:words])
        if name in COMMANDS:
            return name, list(arguments[words:])
    if arguments[:1] == ["--version"]:
        print(f"groma {_version()}")
        sys.exit(0)
    group = (
        arguments[0] if arguments and any(name.startswith(f"{arguments[0]} ") for name in COMMANDS) else ""
    )
    asks_help = any(word in ("-h", "--help") for word in arguments[:2])
    if asks_help or list(arguments) in ([], [group]):
        print(_overview(group), file=sys.stdout if asks_help else sys.stderr)
        sys.exit(0 if asks_help else 2)
    named = list(itertools.takewhile(lambda word: not word.startswith("-"), arguments[:2]))
    asked = " ".join(named or arguments[:1])
    spellings = [asked, *arguments[:1]]
    near = next(
        (match for word in spellings for match in difflib.get_close_matches(word, COMMANDS, 1, 0.7)), ""
    )
    known = [name for name in COMMANDS if name.startswith(f"{group} ")] if group else list(COMMANDS)
    hint = f"did you mean {near}?" if near else f"known are {', '.join(known)}"
    sys.exit(
        _fail(f"{asked!r} is not a command; {hint} (see groma {group + ' ' if group else ''}--help).", 2)
    )


def _version() -> str:
    from groma_ros import __version__

    return __version__


def _overview(group: str = "") -> str:
    """The list of commands; group: only those that begin with this word."""
    shown = {name: command for name, command in COMMANDS.items() if not group or name.startswith(f"{group} ")}
    usage = f"usage: groma {group} COMMAND [options]" if group else "usage: groma COMMAND [options]"
    lines = [usage, "", "Language goals to grounded boxes.", ""]
    width = max(map(len, shown)) + 2
    lines += [f"  {name:<{width}}{command.help}" for name, command in shown.items()]
    example = next(iter(shown.values())).example
    return "\n".join(
        [
            *lines,
            "",
            f"example: {example}",
            "`groma COMMAND --help` says more; `groma --version` the version.",
        ]
    )


def _fail(message: str, status: int = 1) -> int:
    from groma_ros.errors import printable

    print("groma: " + printable(" ".join(message.split())), file=sys.stderr)
    return status


if __name__ == "__main__":
    main()
