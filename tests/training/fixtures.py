"""A fixture that tests of training and of fine-tuning share."""

import pytest


@pytest.fixture(scope="module")
def no_plots():
    """Plots are tested elsewhere, and take as long as these runs."""
    from equipot.training import report

    with pytest.MonkeyPatch.context() as patch:
        for name in ("parity", "learning_curves"):
            patch.setattr(report, name, lambda *_: None)
        yield
