"""The ROS 2 node. Besides `client`, the only package that imports rclpy or message packages."""
