"""The node's pipeline: decode images, process them, publish answers.

One thread does that; a second one runs the language model. Answers carried by motion alone are published in
the callback of a newer image.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from time import perf_counter
from typing import Any

from groma_ros.grounding.grounder import Grounder
from groma_ros.io.images import ImageError
from groma_ros.node.conversions import frame_from_image, image_size, to_nanoseconds, with_depth
from groma_ros.node.detections_3d import Detector3D
from groma_ros.node.frame_queue import FrameJob, FrameThread, LatestFrameQueue, StampedMessage
from groma_ros.node.frame_result import ImageResult
from groma_ros.node.goal_set import NodeConfig
from groma_ros.node.publishers import CameraOutputs
from groma_ros.node.request_queue import FrameRequest, RequestQueue
from groma_ros.node.statistics import Statistics
from groma_ros.node.subscriptions import CameraInputs
from groma_ros.tracking.executor import AnswerExecutor, asking
from groma_ros.tracking.frame_processor import FrameProcessor
from groma_ros.tracking.questions import Question, TrackedAnswer
from groma_ros.types import Grounding

NEWER, STOPPED, RATE = "newer image", "stopped", "max_rate"
"""Causes of a drop."""
CLOSED = "The node is not active."


@dataclass(eq=False)
class Camera:
    """A camera with its state."""

    name: str
    outputs: CameraOutputs
    statistics: Statistics
    inputs: CameraInputs | None = None
    """None while the node is inactive."""
    processor: FrameProcessor | None = None
    """None without a pipeline."""
    view: ImageResult | None = None
    """The newest perceived image."""
    arrival: StampedMessage | None = None
    """The message it was decoded from."""
    age: float | None = None
    """Seconds between the newest output and the image its answers were given on; None before the first
    answer."""
    published: float | None = None
    """Time of the newest output, `perf_counter` seconds."""
    rate: float = 0.0
    """Outputs per second, smoothed."""
    in_progress: StampedMessage | None = None
    """The image being processed, until its 2D answers are published."""
    lock: threading.Lock = field(default_factory=threading.Lock)
    _due: int | None = None
    """Time of the node's clock, ns, from which the next image is processed; None before the first."""

    def claim(self, arrival: StampedMessage) -> bool:
        """Claim the 2D answers of the image being processed; True only for the first caller."""
        with self.lock:
            mine = self.in_progress is arrival
            if mine:
                self.in_progress = None
            return mine

    def record_output(self, now: float, age: float | None) -> None:
        """Record an output at `now` (perf_counter seconds) and update the smoothed rate of outputs."""
        passed = now - self.published if self.published is not None else 0.0
        share = 1 - math.exp(-passed)  # time constant of one second
        self.rate += share * ((1 / passed if passed > 0 else 0.0) - self.rate)
        self.published, self.age = now, age

    def due(self, now: int, rate: float) -> bool:
        """Whether to process a frame that arrives now (ns of the node's clock), to keep to `rate` frames per
        second; 0: no limit."""
        period = int(1e9 / rate) if rate > 0 else 0
        due = self._due
        if period and due is not None and 0 <= due - now <= period:
            return False
        # Advance by whole periods, so that a limit slightly below the camera's rate does not halve it;
        # restart after a jump of the clock.
        self._due = due + period if due is not None and abs(now - due) < period else now + period
        return True


class Pipeline:
    """Answers goals on the newest image of each camera, and one-off requests, until stopped.

    config: returns the current settings and goals; refuse: called with a camera, what was refused ("image" or
    "depth"), a cause and a sentence; notify: called when the stage of a request changes. Both are called
    from this class's threads. detector_3d: computes the 3D answers; statistics: the node's,
    for the time of the language model, which all cameras share.
    """

    def __init__(
        self,
        grounder: Grounder,
        cameras: Sequence[Camera],
        config: Callable[[], NodeConfig],
        refuse: Callable[[Camera, str, str, str], None],
        notify: Callable[[], None],
        detector_3d: Detector3D,
        statistics: Statistics,
    ) -> None:
        self._detector_3d, self._statistics = detector_3d, statistics
        self._grounder, self._config, self._refuse = grounder, config, refuse
        # Own copy: an abandoned pipeline must not reach the cameras of the next configuration.
        self._cameras = tuple(cameras)
        self._executor = AnswerExecutor()
        self._queue = LatestFrameQueue(len(cameras))
        self.requests = RequestQueue(self._executor, self._run_language_model, notify)
        ask = asking(self._executor, self._run_language_model)
        for camera in cameras:
            camera.processor = FrameProcessor(grounder, ask, config().settings.tracking)
            camera.view = camera.arrival = camera.in_progress = camera.age = None
        self._worker = FrameThread(self._queue, self._process_job, self._failed)

    def put(self, camera: int, message: Any) -> None:
        """Queue an image of a camera; returns immediately. It replaces the one waiting, whose 2D answers are
        published at once by motion (or it is dropped); so are those of the image in progress."""
        seen = self._cameras[camera]
        assert seen.processor is not None
        stream = seen.processor.arrived(to_nanoseconds(message.header.stamp))
        current = seen.in_progress  # the worker may clear it at any time
        if current is not None:
            self._carry(seen, current, in_progress=True)
        pushed = self._queue.put(camera, message, stream)
        if pushed is not None and not self._carry(seen, pushed):
            seen.statistics.dropped(NEWER)

    def skip(self, camera: int, message: Any) -> None:
        """Count an image beyond max_rate; its stamp tells the tracker that the camera did not pause."""
        seen = self._cameras[camera]
        assert seen.processor is not None
        seen.processor.arrived(to_nanoseconds(message.header.stamp))
        seen.statistics.dropped(RATE)

    def _carry(self, camera: Camera, arrival: StampedMessage, in_progress: bool = False) -> bool:
        """Publish the 2D answers for an image by motion alone, in the callback thread. False if carrying is
        off or nobody subscribes."""
        config, processor = self._config(), camera.processor
        if processor is None or not config.settings.carry or not camera.outputs.answers_wanted:
            return False
        if in_progress and not camera.claim(arrival):
            return False
        header = arrival.message.header
        tracked = processor.carry(
            to_nanoseconds(header.stamp), config.standing, arrival.stream, image_size(arrival.message)
        )
        camera.outputs.publish_answers(header, tracked, config)
        camera.statistics.carried()
        camera.record_output(perf_counter(), tracked.age if tracked.answered is not None else None)
        return True

    def recall(self, camera: int | None) -> int | None:
        """Process the newest image again for waiting requests. Returns its camera, or None if no image has
        arrived."""
        return self._queue.recall(camera)

    def close(self) -> None:
        """Accept no more images and fail the open requests."""
        for index in self._queue.close():
            self._cameras[index].statistics.dropped(STOPPED)
        self.requests.close(CLOSED)
        self._executor.shutdown(wait=False)

    def stop(self, timeout: float) -> bool:
        """Close and wait for the image in progress. False if it is still being processed after `timeout`
        seconds."""
        self.close()
        end = perf_counter() + timeout
        worker = self._worker.stop(timeout)
        return self._executor.stop(max(0.0, end - perf_counter())) and worker

    @property
    def alive(self) -> bool:
        """Whether a thread is still running."""
        return self._worker.alive or self._executor.alive

    # Language model thread.

    def _run_language_model(self, question: Question) -> list[Grounding]:
        start = perf_counter()
        groundings = question.answer(self._grounder)
        self._statistics.took({"language": perf_counter() - start})
        return groundings

    # Image thread.

    def _process_job(self, job: FrameJob) -> None:
        camera, config = self._cameras[job.camera], self._config()
        requests = self.requests.waiting(job.camera, job.fresh)
        wanted = job.fresh and camera.outputs.wanted(config)
        if not wanted and not requests:
            if job.fresh:
                camera.statistics.skipped()
            return
        camera.in_progress = job.arrival if wanted else None
        try:
            view = self._view(camera, job.arrival, config, bool(requests) or camera.outputs.proposals_wanted)
        except ValueError as error:
            if camera.claim(job.arrival) if wanted else job.fresh:
                self._refuse(
                    camera, "image", error.cause if isinstance(error, ImageError) else "content", str(error)
                )
            for request in requests:
                if not request.wanted.fresh:
                    request.fail(error)
            return
        if wanted:
            view = self._answer(camera, view, job.arrival, config)
        elif job.fresh:
            camera.statistics.skipped()
        if requests:
            self._start_requests(camera, requests, view, config)

    def _view(self, camera: Camera, arrival: StampedMessage, config: NodeConfig, needed: bool) -> ImageResult:
        """Decode a message, and perceive the image if there are goals or `needed`. An image is perceived only
        once."""
        known = camera.view if camera.arrival is arrival else None
        if known is not None and (known.scene is not None or not needed):
            return known
        start = perf_counter()
        if camera.inputs is not None:
            camera.inputs.reserve(to_nanoseconds(arrival.message.header.stamp))
        frame = known.frame if known is not None else frame_from_image(arrival.message)
        decoded = perf_counter()
        scene = self._grounder.perceive(frame) if needed or config.standing.goals else None
        if scene is not None:
            camera.statistics.perceived()
        camera.statistics.took(
            {"wait": start - arrival.time, "decode": decoded - start, "perceive": perf_counter() - decoded}
        )
        camera.view, camera.arrival = (
            ImageResult(arrival.message.header, frame, scene, camera=camera.name),
            arrival,
        )
        return camera.view

    def _answer(
        self, camera: Camera, view: ImageResult, arrival: StampedMessage, config: NodeConfig
    ) -> ImageResult:
        """Track an image and publish its answers."""
        assert camera.processor is not None, "a camera has a processor while the pipeline lives"
        start = perf_counter()
        camera.processor.set_config(config.settings.tracking)
        if view.scene is not None:
            result = camera.processor.process(view.frame, config.standing, arrival.stream, view.scene)
            tracked = result.answer
            if tracked.failure is not None:
                error = tracked.failure
                sentence = f"The language model failed: {type(error).__name__}: {error}"
                self._refuse(camera, "answer", "failure", sentence)
        else:
            tracked = TrackedAnswer((), config.goal_set.version, None, 0.0)
        camera.view = view = replace(view, tracked=tracked)
        tracked_at = perf_counter()
        if camera.claim(arrival):
            camera.outputs.publish_answers(view.header, tracked, config)
            done = perf_counter()
            camera.record_output(done, tracked.age if tracked.answered is not None else None)
            camera.statistics.answered({"publish": done - tracked_at, "total": done - arrival.time})
        camera.statistics.took({"follow": tracked_at - start})
        camera.outputs.publish_pictures(view, config, camera.rate)
        if camera.outputs.detections_3d_wanted:
            view = self._with_depth(camera, view, config)
            self._publish_detections_3d(camera, view, config)
        return view

    def _publish_detections_3d(self, camera: Camera, view: ImageResult, config: NodeConfig) -> None:
        def refuse(cause: str, sentence: str) -> None:
            self._refuse(camera, "depth", cause, sentence)

        if view.frame.depth is None:
            return
        start = perf_counter()
        camera.outputs.publish_detections_3d(
            self._detector_3d.of(view, view.groundings, config.settings, refuse), config
        )
        camera.statistics.took({"depth": perf_counter() - start})

    def _start_requests(
        self, camera: Camera, requests: Sequence[FrameRequest], view: ImageResult, config: NodeConfig
    ) -> None:
        if any(request.wanted.depth for request in requests):
            view = self._with_depth(camera, view, config)
        for request in requests:
            request.begin(view)

    def _with_depth(self, camera: Camera, view: ImageResult, config: NodeConfig) -> ImageResult:
        """Add depth and intrinsics to the view's frame, if they have arrived."""
        if view.complete or camera.inputs is None:
            return view
        frame, why, tolerance = view.frame, "", config.settings.sync_tolerance
        try:
            depth, info = camera.inputs.pair(frame.stamp, tolerance, config.settings.depth_wait)
            frame = with_depth(frame, depth, info, camera.inputs.is_rectified(info))
            if frame.depth is None:
                absent = "camera_info" if info is None else f"depth within {tolerance} s of its stamp"
                why = f"An image came without {absent}, so no 3D positions are available."
                if camera.outputs.detections_3d_wanted:
                    self._refuse(camera, "depth", "missing", why)
        except ImageError as error:
            why = str(error)
            self._refuse(camera, "depth", error.cause, why)
        camera.view = replace(view, frame=frame, complete=True, without_depth=why)
        return camera.view

    def _failed(self, index: int, error: Exception) -> None:
        """Count a frame whose processing raised an unexpected error, and fail the questions waiting for
        it."""
        sentence = f"A frame could not be answered: {type(error).__name__}: {error}"
        self._cameras[index].in_progress = None
        self._refuse(self._cameras[index], "image", "failure", sentence)
        for request in self.requests.waiting(index, fresh=True):
            if not request.wanted.fresh:
                request.fail(ValueError(sentence))
