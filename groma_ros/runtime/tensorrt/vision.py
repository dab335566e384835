"""The vision tokenizer on TensorRT; missing engines of the two vision graphs are built for this machine's
GPU."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from groma_ros.network_config import GromaConfig
from groma_ros.preprocessing import ImageTransform
from groma_ros.progress import ProgressReporter
from groma_ros.runtime.bundle import Bundle, read_network, require_graphs
from groma_ros.runtime.graph_vision import GraphVision, Shapes, perceive_shapes, region_shapes
from groma_ros.runtime.memory_check import check_memory
from groma_ros.runtime.tensorrt.bindings import Engine, EngineError, EnginePlan, Profile, Progress, TensorRT
from groma_ros.runtime.tensorrt.cuda import Cuda, CudaError
from groma_ros.runtime.tensorrt.engine_cache import Built, EngineCache, Key
from groma_ros.runtime.tensorrt.engine_graph import EngineGraph
from groma_ros.runtime.tensorrt.gpu import Gpu, find_gpu

ROLES = ("perceive", "encode_regions")
BATCH = 4
"""Maximum number of images in one run of an engine."""
_WORKSPACE_SHARE = 4  # kernels may use 1/4 of the device's memory while they run


@dataclass(frozen=True)
class EngineRequest:
    """A graph, the machine it is needed for, and how its engine is built."""

    bundle: Bundle
    key: Key
    plan: EnginePlan

    @property
    def file(self) -> str:
        """Name of the graph's file in the bundle."""
        return self.bundle.graph_name(self.key.role, self.key.precision)


class TensorRTVision(GraphVision):
    """VisionTokenizer over the engines of perceive.onnx and encode_regions.onnx. precision: of both."""

    def __init__(
        self,
        perceive: EngineGraph,
        regions: EngineGraph,
        config: GromaConfig,
        transform: ImageTransform,
        precision: str,
    ) -> None:
        super().__init__(perceive, regions, config, transform)
        self.precision = precision


def load_tensorrt_vision(
    bundle: Bundle,
    precision: str | None = None,
    cache: EngineCache | None = None,
    beside_mb: int = 0,
) -> TensorRTVision:
    """Load the vision tokenizer on the first GPU. Engines that are missing or do not match are built, which
    takes minutes for a large model.

    precision: of the graphs, None for fp16 if available; beside_mb: memory of the GPU that the language model
    will need, MiB. Raises EngineError without a GPU, TensorRT or enough memory (by the estimates of
    `memory_check.GROWTH`), or if an engine cannot be built or loaded, and BundleError for graphs that are
    missing or do not match the network.
    """
    gpu, library = require_gpu(), TensorRT()
    store = cache or EngineCache()
    wanted = wanted_engines(bundle, library, gpu, precision)
    _check_memory(wanted, store, beside_mb)
    config = read_network(bundle)
    signatures: Sequence[tuple[Shapes, Shapes]] = (perceive_shapes(config), region_shapes(config))
    try:
        cuda = Cuda()
        with cuda.using():
            engines = [load_engine(item, library, store) for item in wanted]
        perceive, regions = (
            EngineGraph(bundle, item.file, shapes, engine, cuda)
            for item, shapes, engine in zip(wanted, signatures, engines)
        )
    except CudaError as error:
        raise EngineError(str(error)) from error
    return TensorRTVision(perceive, regions, config, bundle.image, wanted[0].key.precision)


def _check_memory(wanted: Sequence[EngineRequest], store: EngineCache, beside_mb: int) -> None:
    """Raise EngineError if the engines do not fit the GPU's memory beside the language model, or loading or
    building one the host's."""
    bundle = wanted[0].bundle
    try:
        check_memory(bundle, {item.file: "engine" for item in wanted}, "cuda", beside_mb)
        for item in wanted:
            path = store.engine_path(item.key)
            if path.is_file():  # the file is read, and TensorRT keeps a copy until it is on the GPU
                check_memory(bundle, {}, "cpu", 2 * path.stat().st_size >> 20)
            else:
                check_memory(bundle, {item.file: "tensorrt"}, "cpu")
    except ValueError as error:
        raise EngineError(str(error)) from error


def require_gpu() -> Gpu:
    """The first GPU. Raises EngineError if there is none."""
    gpu = find_gpu()
    if gpu is None:
        raise EngineError(
            "TensorRT needs an NVIDIA GPU and its driver, and none was found on this machine; use the "
            "backend onnx."
        )
    return gpu


def wanted_engines(
    bundle: Bundle, library: TensorRT, gpu: Gpu, precision: str | None = None
) -> list[EngineRequest]:
    """The engines a bundle needs on a GPU. Raises as `choose_precision`."""
    config = read_network(bundle)
    chosen = choose_precision(bundle, library, precision)
    workspace = (gpu.memory_mb << 20) // _WORKSPACE_SHARE
    capability = ".".join(map(str, gpu.capability))
    wanted = []
    for role, profile in zip(ROLES, profiles(config)):
        graph = str(bundle.files[bundle.graph_name(role, chosen)]["sha256"])
        key = Key(role, graph, library.version, gpu.name, capability, chosen, profile)
        wanted.append(EngineRequest(bundle, key, EnginePlan(profile, workspace)))
    return wanted


def profiles(config: GromaConfig) -> tuple[Profile, Profile]:
    """Dynamic input shapes of both graphs: up to `BATCH` images of one size; one region up to the maximum of
    a scene."""
    side, channels = config.image_size, config.backbone.num_channels
    sizes = ((1, channels, side, side), (1, channels, side, side), (BATCH, channels, side, side))
    most = config.max_region_num
    return {"pixels": sizes}, {"boxes": ((1, 4), (most, 4), (most, 4))}


def choose_precision(bundle: Bundle, library: TensorRT, precision: str | None) -> str:
    """The precision of the vision graphs to build. Raises BundleError if the bundle lacks it, EngineError if
    TensorRT does not support it."""
    held = bundle.vision_precisions
    require_graphs(bundle, held)
    if not library.strongly_typed:
        if precision not in (None, "fp32") or "fp32" not in held:
            asked = precision or held[0]
            raise EngineError(
                f"TensorRT {library.version} runs graphs in fp32 and not in {asked}; use TensorRT 10 or "
                "later, or fp32."
            )
        return "fp32"
    if precision is not None:
        return precision
    return "fp16" if "fp16" in held else held[0]


def graph_bytes(wanted: EngineRequest, library: TensorRT) -> bytes:
    """The ONNX graph in the form the library reads. Raises EngineError if the package onnx is missing or the
    graph has no such form."""
    graph = wanted.bundle.graph(wanted.key.role, wanted.key.precision).read_bytes()
    try:
        from groma_ros.runtime.tensorrt.onnx_lowering import prepared
    except ModuleNotFoundError as error:
        what = (
            "Building an engine needs the Python package onnx, which is not installed; install it with "
            "python -m pip install onnx."
        )
        raise EngineError(what) from error
    try:
        return prepared(graph, lower=not library.reads_opset_18)
    except ValueError as error:
        raise EngineError(str(error)) from error


def build_engine(
    wanted: EngineRequest, library: TensorRT, store: EngineCache, report: Progress, force: bool = False
) -> Built:
    """The engine from the cache, or built into it. EngineError with the graph's name if it cannot be
    built."""

    def build(timing: bytes) -> tuple[bytes, bytes]:
        try:
            return library.build(graph_bytes(wanted, library), wanted.plan, timing, report)
        except EngineError as error:
            raise EngineError(f"{wanted.file} of {wanted.bundle.name}: {error}") from error

    return store.get(wanted.key, build, force)


def load_engine(wanted: EngineRequest, library: TensorRT, store: EngineCache) -> Engine:
    """Load an engine; one from the cache that TensorRT rejects is rebuilt once."""
    report = ProgressReporter(wanted.file)
    built = build_engine(wanted, library, store, report)
    try:
        return library.load(built.engine)
    except EngineError:
        if not built.reused:
            raise
    store.drop(wanted.key)
    return library.load(build_engine(wanted, library, store, report).engine)
