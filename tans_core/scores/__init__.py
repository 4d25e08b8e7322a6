"""Transferability scores: how well a network will do on a task, judged from its answers to the task's images.

All scores take the same cached features (n, D) of n images and their labels (n,); LEEP and NCE take the network's
predictions of its own classes instead. No score trains a network. Higher is better for each. They are compared with
TANS by `tans benchmark`.
"""

from __future__ import annotations

from tans_core.networks.ridge import ProbeScore, ridge_probe
from tans_core.scores.evidence import logme
from tans_core.scores.gaussians import gbc, h_score
from tans_core.scores.neighbours import knn_probe
from tans_core.scores.predictions import leep, n_leep, nce

__all__ = ["ProbeScore", "gbc", "h_score", "knn_probe", "leep", "logme", "n_leep", "nce", "ridge_probe"]
