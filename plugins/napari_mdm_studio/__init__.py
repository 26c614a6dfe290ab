"""MDM Studio inside napari: what napari offers is listed in ``napari.yaml`` and imported when it is first used."""
