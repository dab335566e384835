"""Language goals to grounded boxes on ROS 2, with Groma."""

from pkgutil import extend_path

from groma_ros import telemetry

# The message build generates groma_ros.msg, .srv and .action in another folder of sys.path; both halves are
# one package.
__path__ = extend_path(__path__, __name__)
__version__ = "0.1.0"

telemetry.disable()
