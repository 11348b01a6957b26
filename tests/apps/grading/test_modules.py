"""The configuration: the originals' modules by default, and errors that name what is wrong with a file."""

from pathlib import Path

import pytest

from rabbitry.apps.grading.modules import PER_HOUR, UNDO, Course, load_course
from rabbitry.exceptions import UsageError


def test_without_a_file_the_original_modules_are_configured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.delenv("RABBITRY_GRADING", raising=False)
    course = load_course()
    assert course == Course(undo=UNDO, per_hour=PER_HOUR)
    module = course.module("cloud_computing")
    assert (module.key, module.queue) == ("demonstrator_cc", "correction_queue_cc")
    assert course.module("data_mining").key == "demonstrator_dm"


def test_a_file_adds_modules(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "course.toml"
    file.write_text('largest_submission = 5\n[modules."Big Data"]\nshort = "bd"\nscheme = "bd/scheme.toml"\n')
    course = load_course(file)
    module = course.module("Big Data")
    assert (module.queue, module.scheme) == ("correction_queue_bd", tmp_path / "bd" / "scheme.toml")
    assert course.largest_submission == 5
    monkeypatch.setenv("RABBITRY_GRADING", str(file))
    assert load_course() == course
    with pytest.raises(UsageError, match="unknown module 'cloud_computing': known modules: Big Data"):
        course.module("cloud_computing")


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("x = ]", "line 1"),
        ("x = 1", "unknown key 'x'"),
        ("largest_submission = true", "number of bytes"),
        ("largest_submission = 0", "number of bytes"),
        ("largest_total = 0", "largest_total is 0, which is not a number of bytes"),
        ("submissions_per_hour = -1", "submissions_per_hour is -1, which is not a number of submissions"),
        ('status_logins = "office"', "status_logins is 'office', which is no list of the broker's logins"),
        ("status_logins = [7]", r"status_logins is \[7\], which is no list of the broker's logins"),
        ('[modules.x]\nshort = "x"\nstarter = "x.py"', "no list of files and folders"),
        ("weak_sandbox = 1", "neither true nor false"),
        ("undo = -1", "undo is -1: write 0 to 3600 seconds"),
        ("undo = true", "undo is True: write 0 to 3600 seconds"),
        ("undo = nan", "undo is nan: write 0 to 3600 seconds"),
        ("modules = 3", "must be tables"),
        ("[modules]", "must be tables"),
        ("[modules]\na = 1", "must be a table"),
        ("[modules.a]", "use 1 to 32 of"),
        ('[modules.a]\nshort = "A B"', "use 1 to 32 of"),
        ('[modules.a]\nshort = "a"\nsize = 1', "unknown key 'size'"),
        ('[modules.a]\nshort = "a"\nscheme = 1', "is not a file's name"),
        ('[modules.a]\nshort = "a"\n[modules.b]\nshort = "a"', "two modules"),
    ],
)
def test_an_invalid_configuration_is_refused_with_the_file(text: str, wrong: str, tmp_path: Path) -> None:
    file = tmp_path / "course.toml"
    file.write_text(text)
    with pytest.raises(UsageError, match=wrong) as caught:
        load_course(file)
    assert str(file) in str(caught.value)


def test_a_named_configuration_file_must_exist(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such file"):
        load_course(tmp_path / "missing.toml")
