"""`make demo-navigate`: a mobile base in Miniworld's rooms goes to what words ask for."""
