"""`groma`: one command, a subcommand a task. Nothing heavy is imported before the subcommand is known."""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from groma_ros.types import Goal, Grounding


@dataclass(frozen=True)
class Command:
    """A subcommand: where its two functions are, what it does in a line, and an example.

    options and run name functions of the module: one adds its options to a parser, the other takes the parsed arguments and
    returns the exit status.
    """

    module: str
    run: str
    help: str
    example: str
    options: str = "add_arguments"


COMMANDS = {
    "ground": Command(
        "groma_ros.cli",
        "run_ground",
        "find what words mean in a picture",
        "groma ground --image demo/frame.png --goal 'the red mug' --goal 'all the boxes' --out out/answer.png",
        "add_ground_arguments",
    ),
    "eval scenes": Command(
        "groma_ros.evaluation.scenes",
        "run_eval_scenes",
        "measure a model on rendered scenes with truth",
        "groma eval scenes --model engines/groma-tiny --seed 77 --count 100 --json",
    ),
    "eval robustness": Command(
        "groma_ros.evaluation.robustness",
        "run_eval_robustness",
        "measure a model on pictures and words that are not as trained on",
        "groma eval robustness --model engines/groma-tiny --seed 77 --count 50 --conditions usual,blur,unheard",
    ),
    "eval presence": Command(
        "groma_ros.evaluation.presence",
        "run_eval_presence",
        "measure how well a model says what is not there",
        "groma eval presence --model engines/groma-tiny --seed 77 --count 200 --plot out/reliability.svg",
    ),
    "eval rec": Command(
        "groma_ros.evaluation.referring",
        "run_eval_rec",
        "referring expressions: RefCOCO, RefCOCO+, RefCOCOg",
        "groma eval rec --model engines/groma-7b --data refcoco --images coco/train2017 --split val,testA,testB --out out/refcoco",
    ),
    "eval lvis-ground": Command(
        "groma_ros.evaluation.lvis_ground",
        "run_eval_lvis_ground",
        "average recall of all objects of a class: LVIS-Ground",
        "groma eval lvis-ground --model engines/groma-7b --data lvis_test.json --images coco --paper --out out/lvis",
    ),
    "eval caption": Command(
        "groma_ros.evaluation.caption",
        "run_eval_caption",
        "descriptions of regions: Visual Genome, RefCOCOg",
        "groma eval caption --model engines/groma-7b --data vg_test.json --images vg --dataset vg --out out/vg",
    ),
    "eval chat": Command(
        "groma_ros.evaluation.chat",
        "run_eval_chat",
        "answers and their regions for a judge: LLaVA-COCO",
        "groma eval chat --model engines/groma-7b --data qa90_questions.jsonl --images coco/val2014 --truth instances.json --out out/chat",
    ),
    "eval tracking": Command(
        "groma_ros.evaluation.tracking",
        "run_eval_tracking",
        "measure boxes between answers of a slow language model",
        "groma eval tracking --model engines/groma-tiny --seed 5100 --count 5 --latency 1",
    ),
    "calibrate": Command(
        "groma_ros.evaluation.calibrate",
        "run_calibrate",
        "fit presence and scores to scenes with truth",
        "groma calibrate --model engines/groma-tiny --seed 8 --count 400",
    ),
    "eval depth": Command(
        "groma_ros.evaluation.depth",
        "run_eval_depth",
        "measure boxes in space on rendered scenes with truth",
        "groma eval depth --seed 77 --count 100 --model engines/groma-tiny --json",
    ),
    "eval precisions": Command(
        "groma_ros.evaluation.precisions",
        "run_eval_precisions",
        "compare the precisions of a model on rendered scenes",
        "groma eval precisions --model engines/groma-tiny --seed 2026 --count 200",
    ),
    "bench": Command(
        "groma_ros.bench.measure",
        "run_bench",
        "measure what a frame costs, stage by stage",
        "groma bench --backend onnx,torch --goals 1,10 --json",
    ),
    "replay": Command(
        "groma_ros.replay.command",
        "run_replay",
        "replay bags, compare with what was expected",
        "groma replay demo/tabletop.mcap --goals demo/goals.yaml --truth demo/truth.json",
    ),
    "convert": Command(
        "groma_ros.export.convert",
        "run_convert",
        "make a model that runs without PyTorch",
        "groma convert engines/groma-tiny",
    ),
    "build-engine": Command(
        "groma_ros.bench.build_engine",
        "run_build_engine",
        "build TensorRT engines for this machine's GPU",
        "groma build-engine --model engines/groma-tiny --check",
    ),
    "verify": Command(
        "groma_ros.model.verify",
        "run_verify",
        "hold the network to recorded tensors of the original",
        "groma verify tests/data/golden --json",
    ),
    "scenes": Command(
        "groma_ros.simulation.dataset",
        "run_scenes",
        "render scenes with truth and goals",
        "groma scenes --seed 5 --count 100 --out out/scenes",
    ),
    "train": Command(
        "groma_ros.training.run",
        "run_train",
        "train a small Groma on rendered scenes",
        "groma train --config config/train_tiny.yaml --out runs/tiny --resume",
    ),
}


class _Parser(argparse.ArgumentParser):
    """A parser that says what is wrong in one sentence."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}; see {self.prog} --help.\n")


def main() -> None:
    """The entry point of the command `groma`; ends the process with the subcommand's exit status."""
    try:
        status = _run(sys.argv[1:])
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        sys.exit(1)
    except ModuleNotFoundError as error:
        status = _fail(f"{error.name} is not installed; `make setup-full` installs what this needs.")
    except OSError as error:
        status = _fail(f"{error.filename}: {error.strerror}." if error.filename else str(error))
    except (ValueError, ImportError, RuntimeError) as error:
        status = _fail(str(error))
    sys.exit(status)


def _run(arguments: Sequence[str]) -> int:
    name, rest = _choose(arguments)
    command = COMMANDS[name]
    # Parsers of the subcommands live with their work, so only the chosen one is imported.
    module = sys.modules[__name__] if command.module == "groma_ros.cli" else importlib.import_module(command.module)
    parser = _Parser(
        prog=f"groma {name}",
        description=command.help[0].upper() + command.help[1:] + ".",
        epilog=f"example: {command.example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    getattr(module, command.options)(parser)
    run: Callable[[argparse.Namespace], int] = getattr(module, command.run)
    return run(parser.parse_args(rest))


def _choose(arguments: Sequence[str]) -> tuple[str, list[str]]:
    """The subcommand's name, of one word or two, and the arguments after it."""
    for words in (1, 2):
        name = " ".join(arguments[:words])
        if name in COMMANDS:
            return name, list(arguments[words:])
    if any(word in ("-h", "--help") for word in arguments[:2]):
        print(_overview())
        sys.exit(0)
    asked = " ".join(arguments[:2]) if arguments else "nothing"
    sys.exit(_fail(f"{asked!r} is not a command; known are {', '.join(COMMANDS)} (see groma --help).", 2))


def _overview() -> str:
    lines = ["usage: groma COMMAND [options]", "", "Language goals to grounded boxes.", ""]
    width = max(map(len, COMMANDS)) + 2
    lines += [f"  {name:<{width}}{command.help}" for name, command in COMMANDS.items()]
    return "\n".join([*lines, "", f"example: {COMMANDS['ground'].example}", "`groma COMMAND --help` says more."])


def _fail(message: str, status: int = 1) -> int:
    print("groma: " + " ".join(message.split()), file=sys.stderr)
    return status


# groma ground


def add_ground_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `groma ground`."""
    parser.add_argument("--image", type=Path, required=True, help="a JPEG or PNG picture")
    parser.add_argument(
        "--goal", nargs="+", action="extend", default=[], metavar="TEXT", help="what to look for; without one the scene is listed"
    )
    parser.add_argument("--out", type=Path, metavar="PICTURE", help="write the picture with the boxes drawn (.png or .jpg)")
    parser.add_argument("--model", type=Path, metavar="DIR", help="folder of the model bundle (default: the one that ships)")
    parser.add_argument("--min-presence", type=float, help="presence below which a goal is absent (default: the model's)")
    parser.add_argument("--backend", default="auto", help="what runs the model: auto, onnx, tensorrt, llama_cpp or torch (default: auto)")
    parser.add_argument("--precision", default="auto", help="of the model, e.g. fp32 or int8 (default: the model's own)")
    parser.add_argument("--json", action="store_true", help="write one JSON document to standard output")


def run_ground(args: argparse.Namespace) -> int:
    """`groma ground` with the options of `add_ground_arguments`; returns the exit status."""
    from groma_ros.grounding.goals import check_goal
    from groma_ros.grounding.grounder import Grounder
    from groma_ros.io.images import compressed_to_rgb
    from groma_ros.runtime.model_paths import shipped_model
    from groma_ros.types import Frame, Goal

    goals: list[Goal] = [Goal(text) for text in args.goal] or [Goal("", "describe")]
    for goal in goals:
        check_goal(goal)
    if args.out and args.out.suffix.lower() not in (".png", ".jpg", ".jpeg"):
        raise ValueError(f"--out {args.out} must end in .png or .jpg.")
    rgb = compressed_to_rgb(args.image.read_bytes(), args.image.suffix)
    grounder = Grounder.load(args.model or shipped_model(), args.min_presence, backend=args.backend, precision=args.precision)
    groundings = grounder.ground(Frame(rgb), goals)
    if args.out:
        _write_picture(args.out, rgb, groundings)
    document = {"groundings": [_document(item) for item in groundings]}
    print(json.dumps(document, indent=1) if args.json else "\n".join(_line(item) for item in groundings))
    return 0


def _write_picture(path: Path, rgb: object, groundings: list[Grounding]) -> None:
    import cv2
    import numpy as np

    from groma_ros.visualization import draw_groundings

    path.parent.mkdir(parents=True, exist_ok=True)
    drawn = draw_groundings(np.asarray(rgb), groundings)
    if not cv2.imwrite(str(path), cv2.cvtColor(drawn, cv2.COLOR_RGB2BGR)):
        raise OSError(f"The picture {path} could not be written.")


def _document(grounding: Grounding) -> dict[str, object]:
    detections = [
        {"box": [round(value, 2) for value in item.box], "score": round(item.score, 4)} for item in grounding.detections
    ]
    document: dict[str, object] = {
        "goal": grounding.goal.text,
        "present": round(grounding.present, 4),
        "margin": round(grounding.margin, 4),
        "detections": detections,
    }
    return document | ({"text": grounding.text} if grounding.text else {})


def _line(grounding: Grounding) -> str:
    boxes = [f"  {item.score:.2f}  " + " ".join(f"{value:7.1f}" for value in item.box) for item in grounding.detections]
    found = f"{len(boxes)} found" if boxes else "absent"
    head = grounding.text or f"{grounding.goal.text}: {found}, presence {grounding.present:.2f}, margin {grounding.margin:.2f}"
    return "\n".join([head, *boxes])


if __name__ == "__main__":
    main()
