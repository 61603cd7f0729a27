"""Fixtures that tests of training and of fine-tuning share."""

import pytest


@pytest.fixture(scope="session")
def cache(tmp_path_factory):
    """A folder where compiled functions are kept."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def compile_once(cache):
    """Lets the many short runs of a module share what they compile."""
    import jax

    names = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
    before = {name: getattr(jax.config, name) for name in names}
    for name, value in zip(names, (str(cache), 0.0), strict=True):
        jax.config.update(name, value)
    yield
    for name, value in before.items():
        jax.config.update(name, value)


@pytest.fixture(scope="module")
def no_plots():
    """Plots are tested elsewhere, and take as long as these runs."""
    from equipot.training import report

    with pytest.MonkeyPatch.context() as patch:
        for name in ("parity", "learning_curves", "try_to_write_page"):
            patch.setattr(report, name, lambda *_: None)
        yield
