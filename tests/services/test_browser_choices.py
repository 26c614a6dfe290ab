"""How the image browser looks is remembered, and nonsense is not."""

import pytest

from mdm_studio.config import user_data_dir
from mdm_studio.services.browser_choices import BrowserChoices


def test_they_are_remembered():
    assert BrowserChoices.load() == BrowserChoices()
    BrowserChoices(192, "uncertainty").save()
    assert BrowserChoices.load() == BrowserChoices(192, "uncertainty")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"thumbnail": 12.5}',
        '{"thumbnail": 1e999}',
        '{"thumbnail": 128, "sort": "colour"}',
        '{"thumbnail": 100000, "sort": "name"}',
    ],
)
def test_what_is_damaged_is_left_out(text):
    BrowserChoices().save()
    (user_data_dir() / "browser.json").write_text(text)
    assert BrowserChoices.load() == BrowserChoices()
