"""The pip face of the package; everything but the files it ships is said in pyproject.toml. The ROS face is
CMakeLists.txt and package.xml."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

SHIPPED = {
    "engines/groma-tiny": "engines/groma-tiny",
    "msg": "messages/groma_ros",
    "interfaces/vision_msgs/msg": "messages/vision_msgs",
}
"""Folders of the checkout that a wheel holds, and their places in its folder groma_ros/shipped."""


class BuildWithModel(build_py):
    """Copies the model that ships and the message definitions into a wheel; a checkout has them in place."""

    def run(self) -> None:
        super().run()
        if self.editable_mode:
            return
        for source, place in SHIPPED.items():
            target = Path(self.build_lib) / "groma_ros" / "shipped" / place
            shutil.rmtree(target, ignore_errors=True)
            shutil.copytree(source, target)


setup(cmdclass={"build_py": BuildWithModel})
