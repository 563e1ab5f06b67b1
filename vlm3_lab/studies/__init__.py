"""Studies of models: scores on procedural scenes, ablation, speed, and one picture of all tasks."""
