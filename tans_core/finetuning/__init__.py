"""Fine-tunes one model on one task, and writes the folder of the run."""
