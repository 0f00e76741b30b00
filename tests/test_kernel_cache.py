"""kernel_cache.py: cached kernels go when any source of the package has changed, and only then."""

import os

import pytest

from charstat.kernel_cache import STAMP, drop_stale_kernels


@pytest.fixture
def package(tmp_path):
    root = tmp_path / "package"
    for name in ("a.py", "room/b.py"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("x = 1\n")
        (root / name).parent.joinpath("__pycache__").mkdir(exist_ok=True)
    return root


def kernels(package):
    made = [package / "__pycache__" / "a.f-1.py311.nbi", package / "room" / "__pycache__" / "b.g-2.py311.1.nbc"]
    for file in made:
        file.write_bytes(b"kernel")
    return made


def test_kernels_stay_while_nothing_changes(package):
    assert drop_stale_kernels(package)  # never stamped before
    made = kernels(package)
    assert not drop_stale_kernels(package)
    assert all(file.exists() for file in made)


@pytest.mark.parametrize("changed", ["a.py", "room/b.py", "room/new.py"])
def test_a_change_anywhere_drops_all_kernels(package, changed):
    drop_stale_kernels(package)
    made = kernels(package)
    other = package / "room" / "__pycache__" / "b.cpython-311.pyc"
    other.write_bytes(b"bytecode")
    (package / changed).write_text("x = 23\n")
    assert drop_stale_kernels(package)
    assert not any(file.exists() for file in made)
    assert other.exists()
    assert not drop_stale_kernels(package)


def test_a_touched_file_counts_as_changed(package):
    drop_stale_kernels(package)
    os.utime(package / "a.py", ns=(1, 1))
    assert drop_stale_kernels(package)


def test_a_package_that_cannot_be_stamped_is_no_error(package):
    (package / STAMP).mkdir(parents=True)  # in the way of the stamp file
    assert drop_stale_kernels(package)
