"""Which of many paths are images, which belong together, which are strays."""

from itertools import permutations

import pytest

from napari_cvdm.io.pairing import sort_paths


def touched(folder, *names):
    paths = [folder / name for name in names]
    for path in paths:
        path.touch()
    return paths


def names(found):
    return [entry.name for entry in found.entries]


def test_a_folder_is_its_files_in_natural_order_and_strays_are_named(tmp_path):
    paths = touched(
        tmp_path,
        "cell10.tif",
        "cell2.TIF",
        "notes.txt",
        "README",
        ".DS_Store",
        "._cell2.tif",
        "stack.mrc",
    )
    (tmp_path / "older").mkdir()
    touched(tmp_path / "older", "cell1.tif")
    found = sort_paths([tmp_path], planes=1)
    assert names(found) == ["cell2.TIF", "cell10.tif", "stack.mrc"]
    assert [stray.name for stray in found.strays] == ["README", "notes.txt", "older"]
    assert ".txt" in found.strays[1].reason
    visible = [path for path in paths if not path.name.startswith(".")]
    assert (
        sort_paths([*visible, tmp_path / "older" / "cell1.tif"], planes=1).entries[-1].files[0].name
        == "stack.mrc"
    )


def test_every_path_is_an_entry_or_a_stray_once_whatever_the_order(tmp_path):
    paths = touched(tmp_path, "a.tif", "b.npy", "c.docx")
    answers = {sort_paths([*order, *order], planes=1) for order in permutations([*paths, tmp_path])}
    assert len(answers) == 1
    assert [*names(answers.copy().pop()), *(stray.name for stray in answers.pop().strays)] == [
        "a.tif",
        "b.npy",
        "c.docx",
    ]


@pytest.mark.parametrize(
    ("given", "pairs"),
    [
        (("a_above.tif", "a_below.tif", "b.tif"), ["a_below.tif + a_above.tif", "b.tif"]),
        (
            ("a_z1.tif", "a_z0.tif", "b-1.ome.tif", "b-2.ome.tif"),
            ["a_z0.tif + a_z1.tif", "b-1.ome.tif + b-2.ome.tif"],
        ),
        (
            ("a_000.tif", "a_001.tif", "b_000.tif", "b_001.tif"),
            ["a_000.tif + a_001.tif", "b_000.tif + b_001.tif"],
        ),
        (("a_Plus.tif", "a_Minus.tif"), ["a_Minus.tif + a_Plus.tif"]),
        (("t_0.tif", "t_1.tif", "t_2.tif"), ["t_0.tif", "t_1.tif", "t_2.tif"]),
        (("a_0.tif", "b_1.tif", "c_0.npy"), ["a_0.tif", "b_1.tif", "c_0.npy"]),
        (("far.tif", "close.tif"), ["close.tif + far.tif"]),
        (("only.tif",), ["only.tif"]),
    ],
)
def test_planes_are_paired_by_the_ending_of_their_names(tmp_path, given, pairs):
    paths = touched(tmp_path, *given)
    assert names(sort_paths(reversed(paths), planes=2)) == pairs
    assert len(sort_paths(paths, planes=1).entries) == len(given)


@pytest.mark.parametrize(
    ("given", "images"),
    [
        (("t_0.tif", "t_1.tif", "t_2.tif"), ["t_0.tif + t_1.tif + t_2.tif"]),
        (
            ("a_z3.tif", "a_z1.tif", "a_z2.tif", "b.tif"),
            ["a_z1.tif + a_z2.tif + a_z3.tif", "b.tif"],
        ),
        (("far.tif", "focus.tif", "near.tif"), ["far.tif + focus.tif + near.tif"]),
        (
            ("t_0.tif", "t_1.tif", "t_2.tif", "t_3.tif"),
            ["t_0.tif", "t_1.tif", "t_2.tif", "t_3.tif"],
        ),
        (("a_below.tif", "a_above.tif"), ["a_above.tif", "a_below.tif"]),
        (("stack.tif",), ["stack.tif"]),
    ],
)
def test_as_many_files_as_positions_are_one_image(tmp_path, given, images):
    assert names(sort_paths(reversed(touched(tmp_path, *given)), planes=3)) == images


def test_what_is_no_folder_of_images_says_so(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "image.zarr").mkdir()
    found = sort_paths([tmp_path / "empty", tmp_path / "image.zarr"], planes=1)
    assert not found.entries
    assert [reason.split()[0] for reason in (stray.reason for stray in found.strays)] == [
        "the",
        "OME-Zarr",
    ]
