"""The manifest is what was exported, or it is refused."""

import json
from dataclasses import replace

import numpy as np
import pytest

from schnetpack_phonon.calculators.cp2k import CP2K
from schnetpack_phonon.common.errors import ManifestError
from schnetpack_phonon.labels.labelling import label_job
from schnetpack_phonon.labels.manifest import NAME, Calculation, Manifest, read_manifest
from tests.calculators.cp2k_fixtures import aluminium_phosphide

CODE = {"_target_": "schnetpack_phonon.calculators.cp2k.CP2K", "version": "2023.1", "cutoff": 300}


@pytest.fixture
def manifest() -> Manifest:
    calculator = CP2K(version="2023.1", cutoff=300)
    job = label_job(calculator, aluminium_phosphide(), "no symmetry")
    calculation = Calculation(
        job.key, f"00001-{job.key}", job.description, *job.arguments, 0.4, {"label.inp": "ab12"}
    )
    return Manifest(
        calculator.settings,
        calculator.code_version,
        list(calculator.properties),
        "/somewhere/labels.jsonl",
        CODE,
        [calculation],
    )


def test_round_trip(manifest, tmp_path):
    """The structure to the last bit: its key depends on it."""
    manifest.write(tmp_path)
    again = read_manifest(tmp_path)
    (one,), (other,) = manifest.calculations, again.calculations
    np.testing.assert_array_equal(one.atoms.positions, other.atoms.positions)
    np.testing.assert_array_equal(one.atoms.cell, other.atoms.cell)
    assert {**vars(one), "atoms": other.atoms} == vars(other)
    plain = {key: value for key, value in vars(manifest).items() if key != "calculations"}
    assert {**plain, "settings": manifest.settings} == {
        key: value for key, value in vars(again).items() if key != "calculations"
    }
    assert again.calculator().settings == manifest.settings
    assert [file.name for file in tmp_path.iterdir()] == [NAME]


@pytest.mark.parametrize(
    "folder", ["../x", "/x", ".", "a/../../x", "link/x", "a\nb", "$(x)\x1b[0m"]
)
def test_folders_lie_below_the_manifest(manifest, tmp_path, folder):
    """Symbolic links resolved."""
    root = tmp_path / "exported"
    root.mkdir()
    (root / "link").symlink_to(tmp_path)
    (one,) = manifest.calculations
    replace(manifest, calculations=[replace(one, folder=folder)]).write(root)
    with pytest.raises(ManifestError, match=r"names the folder .*expected one inside of"):
        read_manifest(root)
    (root / "inside").mkdir()
    replace(manifest, calculations=[replace(one, folder="inside/x y")]).write(root)
    assert read_manifest(root).calculations[0].folder == "inside/x y"


def test_moments_are_part_of_it(manifest, tmp_path):
    (one,) = manifest.calculations
    atoms = one.atoms.copy()
    atoms.set_initial_magnetic_moments([1.5, -1.5])
    key = label_job(manifest.calculator(), atoms, "").key
    assert key != one.key
    replace(manifest, calculations=[replace(one, atoms=atoms, key=key)]).write(tmp_path)
    (other,) = read_manifest(tmp_path).calculations
    np.testing.assert_array_equal(other.atoms.get_initial_magnetic_moments(), [1.5, -1.5])


def test_scripts_can_read_it(manifest, tmp_path):
    manifest.write(tmp_path)
    (line,) = json.loads((tmp_path / NAME).read_text())["calculations"]
    assert (line["formula"], line["n_atoms"], line["mixing"]) == ("AlP", 2, 0.4)
    assert line["folder"] == f"00001-{line['key']}"


def test_write_that_fails_leaves_the_old_one(manifest, tmp_path, full_disk):
    manifest.write(tmp_path)
    before = (tmp_path / NAME).read_bytes()
    with full_disk(100), pytest.raises(OSError, match="too large"):
        manifest.write(tmp_path)
    assert (tmp_path / NAME).read_bytes() == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda m: m.update(version=2),
            "format version 2; this version .* reads 1: use the version",
        ),
        (lambda m: m.update(format="mine"), "damaged or not a manifest .*another format"),
        (lambda m: m.pop("settings"), "damaged or not a manifest .*settings"),
        (lambda m: m.update(more=1), "damaged or not a manifest .*more"),
        (lambda m: m["calculations"][0].pop("files"), "damaged or not a manifest .*files"),
        (
            lambda m: m["calculations"][0]["positions"][0].__setitem__(0, 0.2),
            "does not belong to its key",
        ),
        (lambda m: m["settings"].update(cutoff=280), "does not belong to its key"),
        (lambda m: m.update(code_version="CP2K 1"), "does not belong to its key"),
    ],
    ids=["version", "format", "missing", "more", "files", "positions", "settings", "code"],
)
def test_manifests_that_cannot_be_used(manifest, tmp_path, change, message):
    manifest.write(tmp_path)
    content = json.loads((tmp_path / NAME).read_text())
    change(content)
    (tmp_path / NAME).write_text(json.dumps(content))
    with pytest.raises(ManifestError, match=message):
        read_manifest(tmp_path)


def test_manifest_that_is_cut_off_or_missing(manifest, tmp_path):
    with pytest.raises(ManifestError, match="expected a folder written by spkphonon export"):
        read_manifest(tmp_path)
    manifest.write(tmp_path)
    text = (tmp_path / NAME).read_text()
    (tmp_path / NAME).write_text(text[: len(text) // 2])
    with pytest.raises(ManifestError, match="damaged or not a manifest"):
        read_manifest(tmp_path)


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (
            CODE | {"_target_": "os.system", "command": "true"},
            "os.system .*it is not an ExternalCode",
        ),
        (CODE | {"_target_": "no_such_package.Code"}, "cannot be created: No module named"),
        (CODE | {"_target_": "schnetpack_phonon.calculators.cp2k.CP3K"}, "has no attribute 'CP3K'"),
        ({"version": "2023.1"}, "cannot be created"),
        (CODE | {"colour": "blue"}, "unexpected keyword argument 'colour'"),
        (CODE | {"cutoff": 280}, "CP2K has other settings in this version"),
    ],
)
def test_calculators_that_cannot_be_made(manifest, code, message):
    """Nothing but a calculator is ever called."""
    with pytest.raises(ManifestError, match=message):
        Manifest(**{**vars(manifest), "code": code}).calculator()
