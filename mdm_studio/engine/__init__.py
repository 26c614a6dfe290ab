"""Algorithms: backbones, features, the ensemble, pretraining, metrics."""
