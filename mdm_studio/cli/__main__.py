"""``python -m mdm_studio.cli`` (what ``accelerate launch -m`` wants)."""

from mdm_studio.cli import main

main()
