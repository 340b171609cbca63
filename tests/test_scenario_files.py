"""Scenario files: real photographs in every guise, and everything that can be wrong with a file."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import jsonschema
import numpy as np
import pytest
import skimage.data
from PIL import Image as PILImage

from steer_env import scenario_files as files
from steer_env.images import Image, ImageError
from steer_env.scenarios import DraftTurn, Scenario


def write(path: Path, *rows: object) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def problems(path: Path, *rows: object) -> list[str]:
    return [str(p) for p in files.validate(write(path, *rows))]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Photographs from scikit-image in the formats and modes people have."""
    folder = tmp_path / "photos"
    folder.mkdir()
    astronaut, coffee = (
        PILImage.fromarray(skimage.data.astronaut()),
        PILImage.fromarray(skimage.data.coffee()),
    )
    cat, camera = PILImage.fromarray(skimage.data.chelsea()), PILImage.fromarray(skimage.data.camera())
    astronaut.save(folder / "astronaut.jpg", quality=90)
    coffee.save(folder / "coffee.png")
    camera.save(folder / "grey.png")
    PILImage.fromarray(skimage.data.camera().astype(np.uint16) * 257).save(folder / "sixteen.png")
    rgba = cat.convert("RGBA")
    rgba.putalpha(
        PILImage.fromarray(np.tile(np.linspace(0, 255, cat.width), (cat.height, 1)).astype(np.uint8))
    )
    rgba.save(folder / "alpha.png")
    coffee.convert("CMYK").save(folder / "cmyk.jpg")
    coffee.quantize(32).save(folder / "palette.gif")
    camera.point(lambda v: 255 * (v > 128)).convert("1").save(folder / "one_bit.png")
    exif = PILImage.Exif()
    exif[0x0112] = 6  # taken with the camera turned: show it rotated by 90 degrees
    coffee.save(folder / "rotated.jpg", exif=exif)
    cat.save(folder / "cat.webp")
    cat.resize((1, 1)).save(folder / "tiny.bmp")
    coffee.save(folder / "scan.tiff")
    return folder


PHOTOS = {
    "astronaut.jpg": (512, 512),
    "coffee.png": (600, 400),
    "grey.png": (512, 512),
    "sixteen.png": (512, 512),
    "alpha.png": (451, 300),
    "cmyk.jpg": (600, 400),
    "palette.gif": (600, 400),
    "one_bit.png": (512, 512),
    "rotated.jpg": (400, 600),
    "cat.webp": (451, 300),
    "tiny.bmp": (1, 1),
    "scan.tiff": (600, 400),
}


@pytest.mark.parametrize(("name", "size"), PHOTOS.items())
def test_every_format_and_mode_becomes_upright_rgb(photos: Path, name: str, size: tuple[int, int]) -> None:
    path = write(photos / "s.jsonl", {"turns": ["What is this?"], "images": [name]})
    (scenario,) = files.load_scenarios(path)
    (image,) = scenario.images
    assert image.size == size
    assert image.array().dtype == np.uint8
    assert image.array().shape == (size[1], size[0], 3)


def test_pixels_survive_the_guises(photos: Path) -> None:
    names = ["coffee.png", "scan.tiff", "grey.png", "sixteen.png", "rotated.jpg", "palette.gif", "cmyk.jpg"]
    path = write(photos / "s.jsonl", {"turns": ["Compare them."], "images": names})
    coffee, scan, grey, sixteen, rotated, palette, cmyk = files.load_scenarios(path)[0].images
    assert np.array_equal(coffee.array(), skimage.data.coffee())
    assert np.array_equal(scan.array(), coffee.array())
    assert np.abs(grey.array().astype(int) - sixteen.array()).max() <= 1
    for other, turned in (
        (rotated, np.rot90(coffee.array(), -1)),
        (palette, coffee.array()),
        (cmyk, coffee.array()),
    ):
        assert np.abs(turned.astype(int) - other.array()).mean() < 12


def test_transparent_pixels_are_seen_on_white(photos: Path) -> None:
    path = write(photos / "s.jsonl", {"turns": ["?"], "images": ["alpha.png"]})
    pixels = files.load_scenarios(path)[0].images[0].array()
    assert (pixels[:, 0] == 255).all()
    assert not (pixels[:, -1] == 255).all()


def test_images_come_with_the_first_turn_unless_a_turn_names_them(photos: Path) -> None:
    row = {
        "turns": ["Look.", {"text": "And this?", "images": ["coffee.png"]}, "Well?"],
        "images": ["coffee.png", "astronaut.jpg", "cat.webp"],
    }
    (scenario,) = files.load_scenarios(write(photos / "s.jsonl", row))
    assert [t.images for t in scenario.turns] == [(0, 1), (2,), ()]
    assert [Path(i.source).name for i in scenario.images] == ["astronaut.jpg", "cat.webp", "coffee.png"]


def test_no_image_absolute_path_and_the_same_picture_twice(photos: Path, tmp_path: Path) -> None:
    coffee = str(photos / "coffee.png")
    path = write(
        tmp_path / "s.jsonl",
        {"turns": ["No picture at all."]},
        {"turns": [{"text": "Look.", "images": [coffee]}, {"text": "Again.", "images": [coffee]}]},
    )
    plain, twice = files.load_scenarios(path)
    assert plain.images == ()
    assert twice.images[0] is twice.images[1]
    assert [t.images for t in twice.turns] == [(0,), (1,)]


def test_all_keys_are_read(tmp_path: Path) -> None:
    row = {
        "turns": [{"text": "Hi", "risk": 3, "goal": "warm up"}],
        "kind": "red_team",
        "goal": "the secret",
        "strategy": "roleplay",
        "technique": "yes_laddering",
        "category": "c",
        "mechanism": "m",
        "group": "g",
        "provenance": "p",
        "licence": "CC0",
        "id": "mine",
    }
    (s,) = files.load_scenarios(write(tmp_path / "s.jsonl", row))
    assert s.turns == (DraftTurn("Hi", (), 3, "warm up"),)
    assert {key: getattr(s, key) for key in row if key != "turns"} == {
        k: v for k, v in row.items() if k != "turns"
    }


def test_ids_do_not_depend_on_where_the_file_lies(photos: Path, tmp_path: Path) -> None:
    row = {"turns": ["What is this?"], "images": [str(photos / "coffee.png")]}
    first = files.load_scenarios(write(tmp_path / "a.jsonl", row))[0]
    second = files.load_scenarios(write(photos / "b.jsonl", {**row, "images": ["coffee.png"]}))[0]
    assert first.id == second.id != ""


def test_windows_files_and_blank_lines_are_fine(tmp_path: Path) -> None:
    path = tmp_path / "s.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"turns": ["a"]}\r\n\r\n{"turns": ["b"]}')
    assert [s.turns[0].text for s in files.load_scenarios(path)] == ["a", "b"]


@pytest.mark.parametrize(
    ("row", "where", "remedy"),
    [
        ({}, "line 1: turns=missing", "add it"),
        ({"turns": []}, "turns=[]", "add a turn"),
        ({"turns": "hi"}, 'turns="hi"', "square brackets"),
        ({"turns": ["ok", 3]}, "turns[1]=3", 'write "text"'),
        ({"turns": ["  "]}, 'turns[0]="  "', "not blank"),
        ({"turns": [{"image": "a.png", "text": "x"}]}, "turns[0].image=", "did you mean 'images'?"),
        ({"turns": ["x" * 4097]}, "turns[0]=", "at most 4096 characters; shorten it, or spread it"),
        ({"turns": ["x", {"text": "x" * 5000}]}, "turns[1].text=", "at most 4096 characters"),
        ({"turns": ["x"], "goal": "x" * 4097}, "line 1: goal=", "at most 4096 characters"),
        ({"turns": [{"text": "x", "risk": 9}]}, "turns[0].risk=9", "integer 0..5"),
        ({"turns": [{"text": "x", "risk": "3"}]}, 'turns[0].risk="3"', "without quotation marks"),
        ({"turns": [{"text": "x", "risk": True}]}, "turns[0].risk=true", "integer"),
        ({"turns": ["x"], "kind": "red team"}, 'kind="red team"', "did you mean 'red_team'?"),
        ({"turns": ["x"], "strategy": 7}, "strategy=7", "a string"),
        ({"turns": ["x"], "cells": -1}, "cells=-1", "0 or more"),
        ({"turns": ["x"], "cells": 4, "cell": "a"}, "group=''", "name of the contrast group"),
        ({"turns": ["x"], "cells": 4, "group": "g"}, "cell=''", "name of the member"),
        ({"turns": ["x"], "license": "MIT"}, 'license="MIT"', "did you mean 'licence'?"),
        ({"turns": ["x"], "goal": None}, "goal=null", "a string"),
        ({"turns": ["x"], "images": "a.png"}, 'images="a.png"', "square brackets"),
        ({"turns": ["x"], "images": [""]}, 'images[0]=""', "a path"),
        ({"turns": ["x"], "images": ["gone.png"]}, "images[0]='gone.png'", "does not exist"),
        ({"turns": ["x"], "images": ["."]}, "images[0]='.'", "folder"),
        ({"turns": ["x"], "images": ["a\0b"]}, "images[0]=", "picture"),
        ({"turns": ["x"], "images": ["https://x.org/a.png"]}, "images[0]=", "save the picture"),
        ({"turns": ["x \ud800"]}, "turns[0]=", "lone surrogates"),
        ([1], "line 1: [1]", "a JSON object"),
        (7, "line 1: 7", "a JSON object"),
    ],
)
def test_a_problem_names_value_expectation_and_remedy(
    tmp_path: Path, row: object, where: str, remedy: str
) -> None:
    if row == [1]:  # an array on the first line means a JSON array file; put a good line before it
        found = problems(tmp_path / "s.jsonl", {"turns": ["x"]}, row)
        where = where.replace("line 1", "line 2")
    else:
        found = problems(tmp_path / "s.jsonl", row)
    assert len(found) == 1, found
    assert where in found[0]
    assert remedy in found[0]
    assert "expected" in found[0]


def test_all_problems_are_collected_with_their_lines(photos: Path) -> None:
    path = photos / "s.jsonl"
    (photos / "broken.jpg").write_bytes((photos / "astronaut.jpg").read_bytes()[:5000])
    (photos / "text.png").write_text("not a picture")
    path.write_bytes(
        b'{"turns": ["fine"], "images": ["coffee.png"]}\n'
        b'{"turns": [1, {"text": 2}], "kindd": "", "images": ["gone.png"]}\n'
        b"\n"
        b'{"turns": ["x"], "images": ["broken.jpg", "text.png", "coffee.png"]}\n'
        b'{"turns": ["caf\xe9"]}\n'
        b'{"turns": ["a"], "turns": ["b"]}\n'
        b'{"turns": ["fine"], "images": ["coffee.png"]}\n'
        b'{"turns": ["x"], "id": "n1"}\n'
        b'{"turns": ["y"], "id": "n1"}\n'
        b'{"turns": ["torn'
    )
    found = files.validate(path)
    assert [p.line for p in found] == [2, 2, 2, 2, 4, 4, 5, 6, 7, 9, 10]
    text = "\n".join(map(str, found))
    for part in (
        "broken.jpg",
        "text.png",
        "0xe9",
        "given twice",
        "as on line 1",
        "also on line 8",
        "cut off",
    ):
        assert part in text
    with pytest.raises(files.ScenarioFileError, match="11 problems") as caught:
        files.load_scenarios(path)
    assert list(caught.value.problems) == found


def test_more_pictures_in_one_turn_than_a_message_may_show(photos: Path) -> None:
    many = ["tiny.bmp"] * 16
    fine = {"turns": ["x", {"text": "y", "images": ["cat.webp"]}], "images": many}
    assert problems(photos / "s.jsonl", fine) == []
    one = {"turns": [{"text": "y", "images": ["cat.webp"]}], "images": many}
    two = {"turns": ["x", {"text": "y", "images": ["cat.webp"] * 17}]}
    said = problems(photos / "s.jsonl", fine, one, {"turns": ["x"], "images": ["cat.webp"] * 17}, two)
    expected = "17 pictures with one turn, expected at most 16; spread them over several turns"
    assert said == [
        f"line 2: turns[0].images={expected}",
        f"line 3: images={expected}",
        f"line 4: turns[1].images={expected}",
    ]
    with pytest.raises(ValueError, match=r"turns\[0\] shows 17 images, expected at most 16"):
        Scenario((DraftTurn("x", tuple(range(17))),), (Image.from_array(np.zeros((1, 1, 3), np.uint8)),) * 17)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "empty"),
        (b"\n \n", "empty"),
        (b'[{"turns": ["x"]}]', "jq"),
        (b"\x00\xff", "UTF-8"),
        (b"{" * 5000, "JSON"),
    ],
)
def test_files_that_are_no_scenario_files(tmp_path: Path, data: bytes, says: str) -> None:
    path = tmp_path / "s.jsonl"
    path.write_bytes(data)
    (problem,) = files.validate(path)
    assert says in str(problem)


def test_missing_file_and_folder(tmp_path: Path) -> None:
    assert "missing" in str(files.validate(tmp_path / "no.jsonl")[0])
    with pytest.raises(files.ScenarioFileError, match="a folder"):
        files.load_scenarios(tmp_path)


def test_a_long_list_of_problems_is_shortened_in_the_message_only(tmp_path: Path) -> None:
    path = write(tmp_path / "s.jsonl", *[{"turns": [i]} for i in range(50)])
    with pytest.raises(files.ScenarioFileError, match=r"50 problems[\s\S]*and 30 more") as caught:
        files.load_scenarios(path)
    assert len(caught.value.problems) == 50


def test_a_picture_that_changes_after_loading_is_refused(photos: Path) -> None:
    path = write(photos / "s.jsonl", {"turns": ["?"], "images": ["coffee.png"]})
    image = files.load_scenarios(path)[0].images[0]
    (photos / "coffee.png").write_bytes((photos / "grey.png").read_bytes())
    with pytest.raises(ImageError, match="changed after it was loaded"):
        image.array()


def test_saved_scenarios_load_back_equal(photos: Path, tmp_path: Path) -> None:
    generated = Image.from_array(np.full((4, 6, 3), 200, np.uint8))
    scenarios = [
        Scenario(
            (DraftTurn("Look “here”.", (0,), 2, "g"), DraftTurn("And\nhere?", (1,))),
            (Image.from_file(photos / "rotated.jpg"), generated),
            kind="red_team",
            strategy="roleplay",
            goal="hidden",
            group="g1",
        ),
        Scenario((DraftTurn("No picture \N{PILE OF POO}."),)),
    ]
    back = files.load_scenarios(files.save_scenarios(scenarios, tmp_path / "deep" / "s.jsonl"))
    assert [b.id for b in back] == [s.id for s in scenarios]
    assert [b.turns for b in back] == [s.turns for s in scenarios]
    assert back[0].images[0] == scenarios[0].images[0]  # the photograph's very bytes
    for a, b in zip(back[0].images, scenarios[0].images, strict=True):
        assert np.array_equal(a.array(), b.array())


def test_saving_refuses_to_overwrite_nothing_and_duplicates(tmp_path: Path) -> None:
    one = Scenario((DraftTurn("x"),))
    path = tmp_path / "s.jsonl"
    with pytest.raises(ValueError, match="at least one"):
        files.save_scenarios([], path)
    with pytest.raises(ValueError, match="2 of 2 scenarios share their id"):
        files.save_scenarios([one, one], path)
    files.save_scenarios([one], path)
    with pytest.raises(FileExistsError, match="another name"):
        files.save_scenarios([one], path)


def test_shipped_schema_is_the_generated_one() -> None:
    from steer_env.scenario_models import json_schema

    assert files.json_schema() == json_schema()
    jsonschema.Draft202012Validator.check_schema(files.json_schema())


def test_schema_and_models_agree(tmp_path: Path) -> None:
    check = jsonschema.Draft202012Validator(files.json_schema())
    good = [{"turns": ["x"]}, {"turns": [{"text": "x", "risk": 5}], "kind": "benign"}]
    bad = [
        {},
        {"turns": []},
        {"turns": [1]},
        {"turns": ["x"], "kind": "x"},
        {"turns": ["x"], "y": 1},
        {"turns": [" "]},
    ]
    for row in good + bad:
        assert check.is_valid(row) == (not problems(tmp_path / "s.jsonl", row)) == (row in good)


def test_importing_the_library_leaves_pydantic_alone() -> None:
    code = "import sys, steer_env.scenario_files; print('pydantic' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd="/", check=True)
    assert out.stdout.strip() == "False"


def test_ground_truth_of_built_in_pictures_is_kept(tmp_path):
    from steer_env.world import WorldSource, truth_of

    made = [WorldSource().scenario(i) for i in range(6)]
    path = files.save_scenarios(made, tmp_path / "world.jsonl")
    back = files.load_scenarios(path)
    assert back == made  # pictures by their recipes
    assert [s.truth for s in back] == [s.truth for s in made] == [truth_of(s.images[0]) for s in back]
    row = json.loads(path.read_text().splitlines()[0])
    for recipe, images in (("steer-world/1;nonsense", row["turns"][0]["images"]), (row["recipe"], [])):
        row["turns"][0]["images"], row["recipe"] = images, recipe
        path.write_text(json.dumps(row) + "\n")
        (problem,) = files.validate(path)
        assert problem.where == "recipe" and "remove it" in problem.remedy


def test_own_strategies_and_contrast_groups_come_back_as_they_were(tmp_path: Path) -> None:
    rows = [
        {"turns": ["a"], "strategy": "my_own", "technique": "slow_drip", "category": "kitchen"},
        *({"turns": [f"b{i}"], "group": "g", "cell": f"c{i}", "cells": 2} for i in range(2)),
    ]
    read = files.load_scenarios(write(tmp_path / "s.jsonl", *rows))
    assert (read[0].strategy, read[0].technique, read[0].category) == ("my_own", "slow_drip", "kitchen")
    assert [(s.group, s.cell, s.cells) for s in read[1:]] == [("g", "c0", 2), ("g", "c1", 2)]
    assert files.load_scenarios(files.save_scenarios(read, tmp_path / "again.jsonl")) == read


def test_members_that_contradict_their_group_are_named(tmp_path: Path) -> None:
    member = {"group": "g", "cell": "c", "cells": 2}
    rows = [
        {"turns": ["a"], **member},
        {"turns": ["b"], **member},
        {"turns": ["c"], **member, "cell": "d", "cells": 3},
    ]
    found = problems(tmp_path / "s.jsonl", *rows)
    assert len(found) == 2 and found[0].startswith("line 2: cell='c' (also on line 1)")
    assert found[1].startswith("line 3: cells=3, expected 2 as on line 1")
