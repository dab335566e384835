"""`make demo-grasp`: a Panda in robosuite picks up the object named in words."""
