"""Bags in, grounded detections, reports and golden comparisons out; no ROS, no DDS, no clock."""
