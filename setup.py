"""The pip face of the package; everything is said in pyproject.toml. The ROS face is CMakeLists.txt and
package.xml."""

from setuptools import setup

setup()
