"""The wheel in a fresh environment outside the clone, and a scaffolded plugin installed beside it."""

import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

from framework import scaffold
from framework.errors import UserError

ROOT = Path(__file__).parents[2]


def run(*command, cwd, **options):
    finished = subprocess.run([str(c) for c in command], cwd=cwd, capture_output=True, text=True, **options)
    assert finished.returncode == 0, f"{command}\n{finished.stdout[-3000:]}\n{finished.stderr[-3000:]}"
    return finished.stdout


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """A new virtual environment with the built wheel; third-party packages are those of this environment."""
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, ROOT, cwd=folder)
    (wheel,) = folder.glob("*.whl")
    venv.create(folder / "env", with_pip=True)
    python = folder / "env" / "bin" / "python"
    site = run(python, "-c", "import sysconfig; print(sysconfig.get_paths()['purelib'])", cwd=folder).strip()
    # a plain path: the .pth files found there, an editable install of this very project among them, stay unread
    (Path(site) / "dependencies.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    run(python, "-m", "pip", "install", "--no-deps", "--no-index", wheel, cwd=folder)
    return python, wheel, folder


def test_the_wheel_holds_configs_templates_and_plugins_and_nothing_else(environment):
    names = zipfile.ZipFile(environment[1]).namelist()
    for needed in (
        "framework/conf/config.yaml",
        "framework/templates/pyproject.toml.template",
        "framework/py.typed",
        "plugins/generative/conf/experiment/generative/digits.yaml",
    ):
        assert needed in names
    assert {n.split("/")[0] for n in names if ".dist-info" not in n} == {"framework", "plugins"}


def test_the_wheel_launches_the_main_job_and_writes_below_the_working_folder(environment, tmp_path):
    python, _, folder = environment
    where = run(python, "-c", "import framework; print(framework.__file__)", cwd=tmp_path).strip()
    assert Path(where).is_relative_to(folder)
    run(python, "-m", "framework", "+experiment=generative/digits", "debug=fast", cwd=tmp_path)
    (metrics,) = (tmp_path / "runs" / "generative" / "digits").glob("*/metrics.json")
    assert "frechet_distance" in metrics.read_text()


def test_a_scaffolded_plugin_installs_runs_and_passes_its_own_tests_and_the_contract(environment, tmp_path):
    python, _, _ = environment
    run(python, "-m", "framework", "new", "third_party", "package", cwd=tmp_path)
    run(python, "-m", "pip", "install", "--no-deps", "--no-build-isolation", "--no-index", "./package", cwd=tmp_path)
    assert "third_party/example" in run(python, "-m", "framework", "experiments", cwd=tmp_path)
    listing = run(python, "-m", "framework", "plugins", cwd=tmp_path)
    assert "third_party  framework-third_party 0.1.0  1 experiments  ok" in listing
    run(python, "-m", "framework", "+experiment=third_party/example", "trainer.max_epochs=2", cwd=tmp_path)
    (run_folder,) = (tmp_path / "runs" / "third_party" / "example").iterdir()
    assert (run_folder / "figures" / "prediction.png").is_file()
    assert " passed" in run(python, "-m", "pytest", "-q", "-p", "no:cacheprovider", cwd=tmp_path / "package")
    assert "keeps the contract" in run(python, "-m", "framework", "check", "third_party", cwd=tmp_path)


@pytest.mark.parametrize("name", ["Upper", "has-dash", "class", "1st", "json", "torch", "generative", ""])
def test_a_name_that_cannot_be_a_plugin_s_is_refused_and_nothing_written(name, tmp_path):
    with pytest.raises(UserError, match="name"):
        scaffold.write(name, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_folder_in_use_is_left_alone(tmp_path):
    (tmp_path / "mine.txt").write_text("precious")
    with pytest.raises(UserError, match="not empty"):
        scaffold.write("fresh", tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]
