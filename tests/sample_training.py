"""Pretraining on the bundled images in a size for tests, and how to tell whether what came out is of use."""

import dataclasses

import numpy as np
import torch
from sklearn.metrics import balanced_accuracy_score

from mdm_studio.config import resource
from mdm_studio.engine.backbones import load_backbone
from mdm_studio.engine.features import FeatureSettings, PlaneFeatures
from mdm_studio.engine.heads import EnsembleConfig, predict_points, sample_features, train_ensemble
from mdm_studio.io.checkpoints import read_checkpoint
from mdm_studio.io.images import find_images, open_image
from mdm_studio.io.job_folder import JobFolder
from mdm_studio.io.labels import read_labels
from mdm_studio.services.pretraining import run

SAMPLES = "samples/nuclei"


def sample_images():
    return find_images([str(resource(f"{SAMPLES}/images"))])


def trained(out, job, network=None):
    """The folder of a job that was run to its end, with another network than planned if one is given."""
    folder = JobFolder(out)
    folder.create(dataclasses.replace(job, network=network or job.network).to_json())
    list(run(folder))
    return folder


def losses(folder):
    return [row["loss"] for row in folder.read_metrics()]


def assert_averaged(folder):
    """The backbone of a job holds the moving average of the weights."""
    averaged, _ = read_checkpoint(folder.list_checkpoints()[0], prefix="ema/")
    for name, value in load_backbone(folder.backbone).net.state_dict().items():
        torch.testing.assert_close(value, averaged[name], rtol=1e-3, atol=1e-3)  # kept in half precision


def score_on_another_image(folder):
    """Balanced accuracy (chance: 0.5) of nuclei in an image, by a classifier that was fitted to the features of another one."""
    backbone = load_backbone(folder.backbone)
    (x, y), (unseen, truth) = (_pixels(backbone, path, seed) for seed, path in enumerate(sample_images()[:2]))
    for step in train_ensemble(x, y, 2, EnsembleConfig(members=2, max_epochs=20)):
        last = step
    return balanced_accuracy_score(truth, predict_points(last.snapshot(), unseen).labels)


def _pixels(backbone, path, seed):
    """Features and classes of some pixels of an image, as many of each class; no classical filters beside them."""
    settings = FeatureSettings.of(backbone, filters=False)
    with open_image(path) as image:
        plane = image.plane(0)
        truth = read_labels(resource(f"{SAMPLES}/masks") / f"{path.stem}.png", plane.shape[1:], 0) > 0
        rng = np.random.default_rng(seed)
        chosen = np.concatenate([rng.choice(np.flatnonzero(truth == value), 200) for value in (False, True)])
        rows, cols = np.unravel_index(chosen, truth.shape)
        source = PlaneFeatures(backbone, plane, settings)
        assert len(source.grid) == 1
        return sample_features(source.maps(0, 0), rows, cols), truth[rows, cols].astype(np.intp)
