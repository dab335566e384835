"""Groma on PyTorch: the numeric reference. The only runtime module that imports `model/`."""

from __future__ import annotations

import copy
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from transformers.cache_utils import Cache, DynamicLayer

from groma_ros.boxes import xyxy_to_cxcywh
from groma_ros.model.checkpoint import empty_groma, load_weights
from groma_ros.model.groma import Groma
from groma_ros.network_config import GromaConfig
from groma_ros.runtime.bundle import WEIGHTS, Bundle, BundleError, read_network
from groma_ros.runtime.goal_packing import Packing, check_append, owners
from groma_ros.runtime.interfaces import ImageTransform, SelectionRule, make_scene, select_regions
from groma_ros.types import FloatArray, Frame, IntArray, Scene

_NOISE = 1_000_003  # random numbers that all weights are made of; a prime, so that no two rows are equal
_CELLS = 1024  # initial capacity for keys and values: a scene, ten goals and their answers
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def load_torch(
    bundle: Bundle, device: str = "cpu", threads: int | None = None, precision: str = "fp32"
) -> tuple[TorchVision, TorchLanguage]:
    """Load both halves of a bundle's network.

    threads: for the whole process, None leaves them unchanged; precision: fp32, or bf16 or fp16 as in
    `set_precision`. Raises BundleError naming a tensor that is missing, unexpected or misshapen, ValueError
    for an unavailable device.
    """
    where = check_device(device)
    if threads is not None:
        torch.set_num_threads(threads)
    model = set_precision(load_model(bundle), precision, where).to(where)
    return TorchVision(model, bundle.image), TorchLanguage(model)


def check_device(device: str) -> torch.device:
    """The device. Raises ValueError if the installed PyTorch cannot use it."""
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        usable = "cpu and cuda" if torch.cuda.is_available() else "cpu"
        raise ValueError(
            f"The installed PyTorch {torch.__version__} cannot use the device {device!r}, only {usable}."
        ) from error
    return torch.device(device)


def set_precision(model: Groma, precision: str, device: torch.device) -> Groma:
    """Convert the large layers to 16 bits: backbone, bridge, the region encoder's convolutions over the
    backbone's maps and its first linear layer, Llama's layers.

    Everything that decides a box or a score stays float32: the proposer and its refiner, the sampling
    positions of the regions, the box position encoding, what the region encoder computes from pixels, the
    embeddings, the last norm and both heads. With bf16 the backbone uses fp16, because bf16's three digits
    move boxes; fp16 has four and is as fast. On the CPU only Llama's layers, most of the weights, are
    converted: without hardware support a 16-bit convolution takes a hundred times as long as a float32 one.
    """
    dtype = DTYPES[precision]
    if dtype == torch.float32:
        return model
    model.llm.model.layers.to(dtype)
    if device.type == "cpu":
        return model
    encoder = model.region_encoder
    pooling = encoder.roi_align
    for part in (model.img_txt_bridge, encoder.mlvl_fuse, pooling.pconvs, pooling.flatten_linear):
        part.to(dtype)
    # transformers wraps `to` with its own signature; this is nn.Module's.
    nn.Module.to(model.perceiver.vis_encoder, torch.float16)
    # Casts are inserted between layers of different precision.
    for projection in model.perceiver.input_proj:
        projection.register_forward_pre_hook(lambda _, inputs: (inputs[0].float(),))
    for part in (model.img_txt_bridge, *encoder.mlvl_fuse.input_conv):
        part.register_forward_pre_hook(lambda _, inputs: (inputs[0].to(dtype),))
    return model


def device_ceilings(device: str) -> tuple[float, float]:
    """Peak rates of a GPU: operations per second of a large float16 matrix product, and bytes per second read
    from its memory."""
    side, numbers, repeats = 8192, 2**29, 10
    a, b = (torch.rand(side, side, device=device, dtype=torch.float16) for _ in range(2))
    source, target = (torch.zeros(numbers, device=device, dtype=torch.float16) for _ in range(2))
    product = min(_seconds(lambda: a @ b) for _ in range(repeats))
    copying = min(_seconds(lambda: target.copy_(source)) for _ in range(repeats))
    return 2 * side**3 / product, 2 * source.nbytes / copying


def _seconds(call: Callable[[], object]) -> float:
    """Duration of a call on the GPU, until it has finished."""
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    call()
    end.record()
    torch.cuda.synchronize()
    return begin.elapsed_time(end) / 1000


def load_model(bundle: Bundle) -> Groma:
    """Load the bundle's network on the CPU in evaluation mode. Raises BundleError as `load_torch`."""
    path = bundle.file(WEIGHTS)
    config = read_network(bundle)
    try:
        model = empty_groma(config)
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise BundleError(f"The network config of {bundle.name} cannot be built: {error}") from error
    try:
        load_weights(model, path, torch.float32, strict=True)
    except ValueError as error:
        raise BundleError(str(error)) from error
    return model.eval().requires_grad_(False)


def random_model(
    config: GromaConfig,
    device: str = "cpu",
    threads: int | None = None,
    precision: str = "fp32",
    seed: int = 0,
    language: bool = True,
) -> Groma:
    """Create a network with random weights on the device, in the precision it runs in, for measurements
    without a checkpoint.

    Weights have a standard deviation of 0.02; norms are the identity. language: False leaves the language
    model without weights. Other arguments as in `load_torch`.
    """
    where = check_device(device)
    if threads is not None:
        torch.set_num_threads(threads)
    model = set_precision(empty_groma(config), precision, where)
    noise = torch.randn(_NOISE, generator=torch.Generator().manual_seed(seed)).to(where) * 0.02
    for part in (
        model.children() if language else [part for part in model.children() if part is not model.llm]
    ):
        part.load_state_dict(
            {name: _random(tensor, name, noise) for name, tensor in part.state_dict().items()}, assign=True
        )
    model.llm.model.rotary_emb.to(where)
    return model.eval().requires_grad_(False)


def _random(like: torch.Tensor, name: str, noise: torch.Tensor) -> torch.Tensor:
    made = torch.empty(like.shape, dtype=like.dtype, device=noise.device)
    if like.dim() < 2:
        return made.fill_(0.0 if name.endswith("bias") else 1.0)
    for piece in made.view(-1).split(len(noise)):
        piece.copy_(noise[: len(piece)])
    return made


@dataclass(frozen=True, eq=False)
class _Seen:
    """Features of an image that `refer` needs."""

    maps: Sequence[torch.Tensor]
    """Feature maps on the device."""
    boxes: FloatArray
    """All proposals, Qx4 cxcywh."""
    scores: FloatArray
    """Their objectness."""


class TorchVision:
    """VisionTokenizer over `model.groma.Groma`.

    permutation: replaces the order of the selected regions (best score first), to compare with a recorded
    run.
    """

    def __init__(self, model: Groma, transform: ImageTransform, permutation: IntArray | None = None) -> None:
        config = model.config
        self._model = model
        self._transform = transform
        self._rule = SelectionRule(config.box_score_thres, config.nms_thres, config.max_region_num)
        self._permutation = permutation
        self._device = next(model.parameters()).device

    @torch.inference_mode()
    def encode(self, frame: Frame) -> Scene:
        """Encode a uint8 HxWx3 frame; see `VisionTokenizer.encode`."""
        pixels = torch.from_numpy(self._transform(frame.rgb))[None].to(self._device)
        perception = self._model.perceive(pixels)
        seen = _Seen(perception.maps, _numpy(perception.boxes[0]), _numpy(perception.objectness[0]))
        height, width = frame.rgb.shape[:2]
        return self._scene(
            seen, _numpy(perception.image_tokens[0]), None, (width, height), frame.stamp, frame.frame_id
        )

    @torch.inference_mode()
    def refer(self, scene: Scene, boxes: FloatArray) -> Scene:
        """Add user boxes (Mx4 xyxy, camera pixels) to the regions of a scene."""
        user = xyxy_to_cxcywh(boxes, scene.width, scene.height)
        size = (scene.width, scene.height)
        return self._scene(scene.features, scene.image_tokens, user, size, scene.stamp, scene.frame_id)

    def _scene(
        self,
        seen: _Seen,
        image_tokens: FloatArray,
        user: FloatArray | None,
        size: tuple[int, int],
        stamp: int,
        frame_id: str,
    ) -> Scene:
        chosen = select_regions(seen.boxes, seen.scores, self._rule, user, self._permutation)
        regions = self._model.encode_regions(
            list(seen.maps), torch.from_numpy(chosen.boxes)[None].to(self._device)
        )[0]
        region_tokens = _numpy(self._model.region_slot_embeddings(regions))
        return make_scene(chosen, region_tokens, image_tokens, seen, size, stamp, frame_id)


class _Room:
    """Buffers for keys and values (1, heads, cells, size), and the layer that has filled them furthest."""

    def __init__(self, like: torch.Tensor, cells: int) -> None:
        self.keys, self.values = (like.new_empty(*like.shape[:2], cells, like.shape[3]) for _ in range(2))
        self.furthest: weakref.ref[_Layer] | None = None

    def free_behind(self, layer: _Layer, length: int) -> bool:
        """Whether only this layer uses the cells from `length` on."""
        other = self.furthest() if self.furthest is not None else None
        return other is None or other is layer or other.get_seq_length() <= length


class _Layer(DynamicLayer):
    """One layer's keys and values in a buffer with spare cells: new ones are appended, earlier ones are not
    copied.

    A copy of the object shares the buffer. The first to append takes the following cells; another that
    appends while the first is alive takes a buffer of its own, so neither sees the other.
    """

    _room: _Room | None = None

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: object, **kwargs: object
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Append keys and values (1, heads, n, size). Returns all so far."""
        length = self.get_seq_length()
        end = length + key_states.shape[-2]
        if self._room is None or end > self._room.keys.shape[-2] or not self._room.free_behind(self, length):
            room = _Room(key_states, max(_CELLS, 2 * end))
            if self.keys is not None and self.values is not None:
                room.keys[..., :length, :], room.values[..., :length, :] = self.keys, self.values
            self._room = room
        self._room.keys[..., length:end, :], self._room.values[..., length:end, :] = key_states, value_states
        self._room.furthest = weakref.ref(self)
        self.is_initialized = True
        self.keys, self.values = self._room.keys[..., :end, :], self._room.values[..., :end, :]
        return self.keys, self.values

    def reset(self) -> None:
        """Drop everything, including the buffer."""
        self._room = None
        super().reset()


@dataclass(eq=False)
class _Branches:
    """All goals of a scene as one packed sequence after the prefix, with keys and values of both."""

    cache: Cache
    packing: Packing


class TorchLanguage:
    """LanguageModel over Groma's Llama."""

    def __init__(self, model: Groma) -> None:
        self._model = model
        self._llama = model.llm.model
        self._device = self._llama.rotary_emb.inv_freq.device
        self._dtype = self._llama.layers[0].self_attn.q_proj.weight.dtype
        self.width: int = self._llama.config.hidden_size
        self.context: int = self._llama.config.max_position_embeddings
        self.base_vocabulary: int = model.config.language.vocab_size
        self.vocabulary: int = model.config.vocab_size

    @torch.inference_mode()
    def embed(self, ids: IntArray) -> FloatArray:
        """Input embeddings of token ids: (N,) to (N, D)."""
        return _numpy(self._model.embed(torch.as_tensor(np.asarray(ids, np.int64), device=self._device)))

    @torch.inference_mode()
    def prefill(self, embeddings: FloatArray) -> Cache:
        """Compute keys and values of a prefix (P, D)."""
        cache = Cache(layers=[_Layer() for _ in self._llama.layers])
        self._llama(inputs_embeds=self._rows([embeddings]), past_key_values=cache, use_cache=True)
        return cache

    @torch.inference_mode()
    def branch(self, prefix: Cache, tails: Sequence[FloatArray]) -> tuple[_Branches, FloatArray]:
        """Run all tails (L_i, D) in one pass after the shared prefix. Returns logits (B, V) at the end of
        each."""
        owner, ends = owners(tails)
        branches = _Branches(_share(prefix), Packing.behind(prefix.get_seq_length(), len(tails)))
        hidden = self._extend(branches, self._rows(tails), owner)
        return branches, _numpy(self._model.logits(hidden[torch.from_numpy(ends).to(self._device)]))

    @torch.inference_mode()
    def append(self, branches: _Branches, rows: Sequence[int], tokens: Sequence[int]) -> FloatArray:
        """Append one token to each of the given rows, each at most once. Returns logits (len(rows), V)."""
        check_append(rows, tokens)
        ids = torch.as_tensor(np.asarray(tokens, np.int64), device=self._device)
        hidden = self._extend(
            branches, self._model.embed(ids)[None].to(self._dtype), np.asarray(rows, np.int64)
        )
        return _numpy(self._model.logits(hidden))

    def release(self, prefix: Cache) -> None:
        """Drop the prefix's keys and values."""
        prefix.reset()

    def _rows(self, parts: Sequence[FloatArray]) -> torch.Tensor:
        rows = torch.from_numpy(np.concatenate([np.asarray(part, np.float32) for part in parts]))
        return rows.to(self._device, self._dtype)[None]

    def _extend(self, branches: _Branches, embeddings: torch.Tensor, owner: IntArray) -> torch.Tensor:
        """Run new slots (1, n, D), slot i after the current end of row `owner[i]`. Returns their hidden
        states (n, D)."""
        packing, positions, mask = branches.packing.extended(owner)
        output = self._llama(
            inputs_embeds=embeddings,
            attention_mask=torch.from_numpy(mask).to(self._device, self._dtype)[None, None],
            position_ids=torch.from_numpy(positions).to(self._device)[None],
            past_key_values=branches.cache,
            use_cache=True,
        )
        branches.packing = packing
        return output.last_hidden_state[0]


def _share(cache: Cache) -> Cache:
    """A cache that starts with the same tensors; appending to it leaves them unchanged."""
    shared = copy.copy(cache)
    shared.layers = [copy.copy(layer) for layer in cache.layers]
    return shared


def _numpy(tensor: torch.Tensor) -> NDArray[Any]:
    return tensor.float().cpu().numpy()
