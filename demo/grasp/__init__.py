"""`make demo-grasp`: a Panda in robosuite picks up what words ask for."""
