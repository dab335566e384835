"""The network config of a bundle, read without any library that could run the network."""

from __future__ import annotations

from groma_ros.model.config import GromaConfig
from groma_ros.runtime.bundle import Bundle, BundleError


def read_network(bundle: Bundle) -> GromaConfig:
    """The config of the bundle's network. BundleError if none can be made of it, or it contradicts the rest of the manifest."""
    try:
        config = GromaConfig.from_dict(bundle.network)
    except (KeyError, TypeError, ValueError, AttributeError, ZeroDivisionError) as error:
        raise BundleError(f"The network config of {bundle.name} cannot be built: {error}") from error
    if bundle.image.size != config.image_size:
        sizes = f"pictures of {bundle.image.size} pixels and its network config {config.image_size}"
        raise BundleError(f"The manifest of {bundle.name} asks for {sizes}; they must agree.")
    return config
