"""Offline replay of bags: grounded detections, reports and comparisons with stored runs, without ROS."""
