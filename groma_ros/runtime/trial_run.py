"""The main program of a trial's process (see `first_load`): load a bundle and run it on a plain picture.

Its only argument is JSON with parent (a process id), directory, options and memory (a limit in bytes or
null). It prints a JSON object: `kind` (done, bundle, refused or failed) and `said`, a sentence.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys

import numpy as np

from groma_ros.errors import sentence
from groma_ros.runtime.bundle import Bundle, BundleError
from groma_ros.runtime.load import Runtime, load_for_trial
from groma_ros.runtime.options import RuntimeOptions
from groma_ros.types import Frame
from groma_ros.worker_pool import die_with_parent

SIZE = 64
"""Side of the picture, pixels."""
TOKENS = 8
"""Length of the text that the language model reads, tokens."""


def main() -> None:
    """Try the bundle named by the argument. Exit status 0 even if it was refused."""
    asked = json.loads(sys.argv[1])
    die_with_parent(asked["parent"])
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is handled by the parent, which ends this process
    report = os.dup(1)
    os.dup2(2, 1)  # libraries may print
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if asked["memory"] is not None:
        _, allowed = resource.getrlimit(resource.RLIMIT_DATA)
        most = asked["memory"] if allowed == resource.RLIM_INFINITY else min(asked["memory"], allowed)
        resource.setrlimit(resource.RLIMIT_DATA, (most, most))
    kind, said = "done", ""
    try:
        bundle = Bundle.load(asked["directory"])
        run_once(load_for_trial(bundle, RuntimeOptions(**asked["options"])), bundle.name)
    except BundleError as error:
        kind, said = "bundle", str(error)
    except Exception as error:
        said = sentence(error)
        kind = "refused" if isinstance(error, ValueError) and said == str(error) else "failed"
    with os.fdopen(report, "w") as stream:
        stream.write(json.dumps({"kind": kind, "said": said}))
    os._exit(0)  # shutdown errors of libraries are irrelevant


def run_once(runtime: Runtime, name: str) -> None:
    """Run every part of a model once on a grey picture, one region and a short text. Raises BundleError if
    that fails."""
    picture = np.full((SIZE, SIZE, 3), 128, np.uint8)
    whole = np.array([[0, 0, SIZE, SIZE]], np.float32)
    try:
        runtime.vision.refer(runtime.vision.encode(Frame(picture)), whole)
        language = runtime.language
        text = language.embed(np.zeros(TOKENS, np.int64))
        prefix = language.prefill(text)
        language.branch(prefix, [text[:1]])
        language.release(prefix)
    except Exception as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise BundleError(f"The model {name} cannot be run on a plain picture: {reason}") from error
