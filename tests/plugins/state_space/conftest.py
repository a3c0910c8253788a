import pytest
import torch


@pytest.fixture(autouse=True)
def _one_thread_and_a_cache_of_its_own(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch):
    # solutions are shared by the tests of one session, and never taken from or left in the user's cache
    folder = tmp_path_factory.getbasetemp() / "state_space_cache"
    monkeypatch.setenv("STATE_SPACE_CACHE", str(folder))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(threads)
