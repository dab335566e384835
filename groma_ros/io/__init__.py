"""Camera input in numpy terms: images, depth, stamps and bags, without ROS."""
