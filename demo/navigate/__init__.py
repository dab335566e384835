"""`make demo-navigate`: a mobile base in Miniworld's rooms drives to the object named in words."""
