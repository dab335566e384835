"""The ROS 2 face: the only place that imports rclpy or a message package."""
