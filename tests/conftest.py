"""Settings of all tests."""

from pathlib import Path

import pytest
from hypothesis import settings

# No test may depend on how fast the machine is.
settings.register_profile("steady", deadline=None)
settings.load_profile("steady")


@pytest.fixture(autouse=True)
def no_corrections_of_this_user(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """What `advisor calibrate` kept on this machine must not change a test: the folder that it is kept in."""
    folder = tmp_path_factory.mktemp("config")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(folder))
    return folder
