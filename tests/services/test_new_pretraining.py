"""From the form of a front end to a job, and from a job to a backbone in use."""

import json
import shutil

import pytest

from mdm_studio.config import user_data_dir
from mdm_studio.errors import JobError, MDMStudioError
from mdm_studio.services import pretraining
from mdm_studio.services.folder_survey import survey_folder
from mdm_studio.services.jobs.states import JobView
from mdm_studio.services.new_pretraining import (
    Wanted,
    job_settings,
    keep_wanted,
    network_channels,
    read_card,
    read_wanted,
    usable_backbone,
)
from mdm_studio.services.pretraining import Job


@pytest.fixture
def survey(images_and_labels):
    (images_and_labels[0] / "broken.png").write_bytes(b"")
    steps = survey_folder(images_and_labels[0])
    while True:
        try:
            next(steps)
        except StopIteration as finished:
            return finished.value


def test_the_job_has_all_readable_images_and_what_was_chosen(survey):
    wanted = Wanted(start_from="", size="small", crop=32, scale=2, minutes=5, device="cpu", jitter=True)
    job = Job.from_json(dict(job_settings(wanted, survey, " mine ")))
    assert [path.rpartition("/")[2] for path in job.images] == ["field0.png", "field1.png", "field2.png"]
    assert (job.name, job.minutes, job.steps, job.start_from) == ("mine", 5, None, None)
    assert (job.config.crop, job.config.scales, job.config.jitter, job.config.device) == (32, (2,), True, "cpu")
    request = wanted.speed_request(survey)
    assert (request.crop, request.scales, request.start_from) == (32, (2,), None)


def test_the_recipe_its_settings_and_numbers_stand_in_the_job(survey):
    settings = {"schedule": "cosine", "noise": "fresh"}
    wanted = Wanted(start_from="", recipe="ddpm", recipe_settings=settings, crop=32, minutes=5, device="cpu")
    job = Job.from_json(dict(job_settings(wanted, survey, "mine")))
    assert (job.recipe, job.recipe_settings["schedule"], job.recipe_settings["noise"]) == ("ddpm", "cosine", "fresh")
    assert wanted.speed_request(survey).recipe_settings == settings
    masked = Wanted(start_from="", recipe="mae", recipe_settings={"ratio": 0.5}, size="mae-tiny", crop=64, minutes=5)
    job = Job.from_json(dict(job_settings(masked, survey, "mine")))
    assert (job.recipe_settings["ratio"], job.network.image_size, job.config.betas) == (0.5, 64, (0.9, 0.95))
    assert masked.speed_request(survey).key != wanted.speed_request(survey).key


def test_channels_of_the_new_network(survey):
    assert network_channels(None, None) == 0
    assert network_channels(survey, None) == 3
    assert network_channels(survey, (0,)) == 3  # grey is shown as grey colours
    assert network_channels(survey, (0, 1, 2, 3, 4)) == 5


def test_it_begins_with_the_bundled_backbone_unless_told_otherwise(survey):
    job = Job.from_json(dict(job_settings(Wanted(minutes=5), survey, "mine")))
    assert job.start_from.endswith("mdm-nuclei")


@pytest.mark.parametrize(
    ("wanted", "name", "words"),
    [
        (Wanted(minutes=5), "", "no name"),
        (Wanted(), "a", "how long"),
        (Wanted(minutes=5, crop=40), "a", "must be a multiple"),
        (Wanted(minutes=5, channels=(7,)), "a", "has 3 channels and 7 were asked for"),
        (Wanted(minutes=5, recipe="mae"), "a", "network of another kind"),
        (Wanted(minutes=5, recipe_settings={"colour": 1}), "a", "no setting 'colour'"),
        (Wanted(minutes=5, start_from="", encoder="facebook/x"), "a", "trains a network without one"),
    ],
)
def test_what_cannot_work_is_refused_in_words(survey, wanted, name, words):
    with pytest.raises(MDMStudioError, match=words):
        job_settings(wanted, survey, name)


def test_choices_are_remembered_but_not_those_of_a_folder():
    assert read_wanted() == Wanted()
    keep_wanted(Wanted(start_from="", size="base", scale=4, crop=96, jitter=True, minutes=30, channels=(1,)))
    assert read_wanted() == Wanted(start_from="", size="base", scale=4, crop=96, jitter=True)
    chosen = Wanted(start_from="", recipe="maskdm", recipe_settings={"ratio": 0.5, "wavelet": True}, encoder="a/b", size="tiny")
    keep_wanted(chosen)
    assert read_wanted() == chosen
    older = {"version": 1, "start_from": "", "recipe": "mdm", "size": "base", "scale": 2, "crop": 64, "jitter": True}
    (user_data_dir() / "pretraining.json").write_text(json.dumps(older | {"device": "cpu"}))
    assert read_wanted() == Wanted(start_from="", size="base", scale=2, crop=64, jitter=True, device="cpu")
    for text in ("{", "[]", '{"version": 9}', '{"version": 1, "crop": "many"}', '{"version": 1, "x": 1}'):
        (user_data_dir() / "pretraining.json").write_text(text)
        assert read_wanted() == Wanted()


def test_a_finished_backbone_is_used_by_its_name_and_a_running_one_by_its_checkpoint(tmp_path, tiny_backbone, monkeypatch):
    published = user_data_dir() / "backbones" / "mine"
    shutil.copytree(tiny_backbone, published)
    done = JobView("a", tmp_path, "pretrain", "mine", "done", result=published)
    assert usable_backbone(done) == "mine"
    assert read_card(done) == "# tiny\n"
    snapshot = tmp_path / "snapshots" / "step-00000200"
    monkeypatch.setattr(pretraining, "snapshot", lambda folder: snapshot if snapshot.exists() else None)
    running = JobView("b", tmp_path, "pretrain", "mine", "running")
    with pytest.raises(JobError, match="no checkpoint yet"):
        usable_backbone(running)
    with pytest.raises(JobError, match="no model card yet"):
        read_card(running)
    shutil.copytree(tiny_backbone, snapshot)
    assert usable_backbone(running) == "mine-step-200"
    assert usable_backbone(running) == "mine-step-200"  # not a second copy
