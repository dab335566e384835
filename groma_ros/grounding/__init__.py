"""A scene and goals in, groundings out."""
