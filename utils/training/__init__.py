"""Training: engine, losses, optimisers, schedules, checkpoints, logs."""
