"""A fine-tuned network in use: loads the folder of a run, predicts with calibrated probabilities, exports."""
