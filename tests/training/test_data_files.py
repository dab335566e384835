"""Published data formats: content, training on them in every stage, and resuming with identical results."""

from __future__ import annotations

import dataclasses
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file

from groma_ros.model.groma import Groma
from groma_ros.runtime.bundle import WEIGHTS, Bundle
from groma_ros.tokenization.prompts import PUBLISHED_TEMPLATE
from groma_ros.training.config import TrainConfig
from groma_ros.training.data_files import TrainingDataError, open_file
from groma_ros.training.run import STAGES, TrainingRun, train
from tests.training.test_training import CONFIG

WIDTH, HEIGHT = 160, 120
CATEGORIES = [{"id": 7, "name": "person"}, {"id": 3, "name": "dog"}, {"id": 9, "name": "umbrella"}]
BOXES = [[10, 20, 40, 60], [70, 30, 50, 50], [100, 10, 45, 30]]


def _pictures(folder: Path, count: int) -> list[dict[str, Any]]:
    """Noise with light rectangles, and their entries of `images`."""
    folder.mkdir(parents=True, exist_ok=True)
    entries = []
    for number in range(count):
        image = np.random.default_rng(number).integers(0, 90, (HEIGHT, WIDTH, 3), dtype=np.uint8)
        for x, y, w, h in BOXES:
            image[y : y + h, x : x + w] += 120
        cv2.imwrite(str(folder / f"{number}.jpg"), image)
        entries.append({"id": 100 + number, "file_name": f"{number}.jpg", "width": WIDTH, "height": HEIGHT})
    return entries


def _annotation(key: int, image: int, box: list[int], category: int = 7, **more: Any) -> dict[str, Any]:
    return {
        "id": key,
        "image_id": image,
        "bbox": box,
        "category_id": category,
        "area": box[2] * box[3],
        "iscrowd": 0,
        **more,
    }


def detection_file(folder: Path) -> Path:
    """Three pictures: two persons and a dog; a dog; nothing but a crowd and a speck."""
    images = _pictures(folder, 3)
    annotations = [
        _annotation(1, 100, BOXES[0]),
        _annotation(2, 100, BOXES[1]),
        _annotation(3, 100, BOXES[2], 3),
        _annotation(4, 101, BOXES[2], 3),
        _annotation(5, 102, BOXES[0], iscrowd=1),
        _annotation(6, 102, [5, 5, 1, 1]),
    ]
    path = folder / "instances_train.json"
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": CATEGORIES}))
    return path


def phrase_file(folder: Path) -> Path:
    """One entry of `images` a phrase, as the evaluation of REC reads it; two phrases are of the same box."""
    (image,) = _pictures(folder, 1)
    said = [("the man on the left", BOXES[0]), ("man in red", BOXES[0]), ("dog", BOXES[2])]
    images = [
        {**image, "id": number, "caption": text, "dataset_name": "refcoco"}
        for number, (text, _) in enumerate(said)
    ]
    annotations = [_annotation(number, number, box) for number, (_, box) in enumerate(said)]
    path = folder / "finetune_refcoco_train.json"
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": CATEGORIES}))
    return path


def pair(folder: Path) -> Path:
    """refs(unc).p and instances.json, as RefCOCO is published; one of the phrases is of another split."""
    images = _pictures(folder, 1)
    annotations = [
        _annotation(1, 100, BOXES[0]),
        _annotation(2, 100, BOXES[2], 3),
        _annotation(3, 100, BOXES[1]),
    ]
    refs = [
        {
            "ref_id": 0,
            "ann_id": 1,
            "image_id": 100,
            "split": "train",
            "sentences": [{"sent": "left man"}, {"sent": "man in red"}],
        },
        {"ref_id": 1, "ann_id": 2, "image_id": 100, "split": "train", "sentences": [{"sent": "the dog"}]},
        {
            "ref_id": 2,
            "ann_id": 3,
            "image_id": 100,
            "split": "val",
            "sentences": [{"sent": "never trained on"}],
        },
    ]
    (folder / "instances.json").write_text(
        json.dumps({"images": images, "annotations": annotations, "categories": CATEGORIES})
    )
    path = folder / "refs(unc).p"
    path.write_bytes(pickle.dumps(refs, protocol=2))
    return path


FORMS = {"detection": detection_file, "phrases": phrase_file, "pair": pair}


def test_boxes_of_a_detection_file_become_objects_and_goals(tmp_path: Path) -> None:
    pictures = open_file(detection_file(tmp_path))
    assert [len(objects) for objects in pictures.objects] == [
        3,
        1,
    ]  # no crowd, no speck, no picture without a box
    sample = pictures.sample(0)
    assert sample.rgb.shape == (HEIGHT, WIDTH, 3) and sample.objects[0].box == (10, 20, 50, 80)
    rng = np.random.default_rng(0)
    assert {(g.text, g.targets) for g in sample.draw(rng, 9, "all")} == {("person", (0, 1)), ("dog", (2,))}
    assert [(g.text, g.targets) for g in sample.draw(rng, 9, "absent")] == [("umbrella", ())]
    assert sample.draw(rng, 9, "one") == [] and not pictures.mirrors


@pytest.mark.parametrize(("form", "left"), [("phrases", "the man on the left"), ("pair", "left man")])
def test_phrases_of_both_forms_name_their_boxes(form: str, left: str, tmp_path: Path) -> None:
    pictures = open_file(FORMS[form](tmp_path))
    sample = pictures.sample(0)
    assert [item.box for item in sample.objects] == [(10, 20, 50, 80), (100, 10, 145, 40)]
    goals = {g.text: g.targets for g in sample.draw(np.random.default_rng(0), 9, "one")}
    assert goals == {left: (0,), "man in red": (0,), "the dog" if form == "pair" else "dog": (1,)}
    assert {sample.phrase(0, np.random.default_rng(seed)) for seed in range(20)} == {left, "man in red"}
    assert sample.draw(np.random.default_rng(0), 9, "all") == []


def test_what_cannot_be_trained_on_is_named(tmp_path: Path) -> None:
    with pytest.raises(TrainingDataError, match=r"nowhere.json cannot be read: .*; check --data"):
        open_file(tmp_path / "nowhere.json")
    wrong = tmp_path / "wrong.json"
    wrong.write_text('{"pictures": []}')
    with pytest.raises(TrainingDataError, match=r"wrong.json has no list 'images'"):
        open_file(wrong)
    wrong.write_text(json.dumps({"images": [], "annotations": [], "categories": []}))
    with pytest.raises(TrainingDataError, match="holds no picture with a box"):
        open_file(wrong)
    (tmp_path / "instances.json").write_text(wrong.read_text())
    evil = tmp_path / "refs(evil).p"
    evil.write_bytes(pickle.dumps([os.system]))
    with pytest.raises(TrainingDataError, match="only plain values are read"):
        open_file(evil)
    path = detection_file(tmp_path / "lost")
    (tmp_path / "lost" / "0.jpg").unlink()
    with pytest.raises(
        TrainingDataError, match=r"1 of the 2 pictures .* the first is .*0.jpg; check --images"
    ):
        open_file(path)


def goals_file(folder: Path, *goals: dict[str, Any]) -> Path:
    """Two pictures with goals. Of the boxes of the first one (ids 1 to 4) only the first can be learnt."""
    annotations = [
        _annotation(1, 100, BOXES[0]),
        _annotation(2, 100, [WIDTH + 5, 10, 30, 30]),
        _annotation(3, 100, [-40, 10, 30, 30]),
        _annotation(4, 100, [5, 5, 1, 1]),
        _annotation(5, 101, BOXES[1]),
    ]
    document = {"images": _pictures(folder, 2), "annotations": annotations, "categories": CATEGORIES}
    path = folder / "labels.json"
    path.write_text(json.dumps({**document, "goals": goals}))
    return path


def _goal(text: str, *annotations: Any, image: int = 100) -> dict[str, Any]:
    return {"image_id": image, "text": text, "kind": "attribute", "annotation_ids": list(annotations)}


@pytest.mark.parametrize(
    ("goal", "said"),
    [
        (_goal("the man", 1, 77), "names the annotation 77, which is not listed"),
        (_goal("the man", "x"), "names the annotation 'x', which is not listed"),
        (_goal("the man", None), "names the annotation null, which is not listed"),
        (_goal("the man", 5), "names the annotation 5, which is of the image 101 and not of its own"),
        (_goal("the man", 1, 1.0), r"names an annotation twice in its annotation_ids \[1, 1.0\]"),
        (_goal("the man", 1, image=9), "names the image 9, which is not listed"),
        (_goal(" ", 1), "has the text ' ' and must have a text with words"),
    ],
)
def test_a_goal_with_a_box_that_is_not_its_own_is_refused(
    goal: dict[str, Any], said: str, tmp_path: Path
) -> None:
    with pytest.raises(TrainingDataError, match=rf"labels.json: goals\[1\] {said}; check --data"):
        open_file(goals_file(tmp_path, _goal("a mug", 1), goal))


def test_boxes_and_goals_that_are_left_out_are_counted(tmp_path: Path) -> None:
    goals = [
        _goal("the man", 1),
        _goal("a mug"),
        _goal("two", 1, 2),
        _goal("out", 3),
        _goal("dog", 5, image=101),
    ]
    path = goals_file(tmp_path, *goals)
    pictures = open_file(path)
    assert pictures.note == (
        f"{path}: 3 of the 5 boxes are left out (2 outside the picture, 1 narrower or lower than 2 pixels); "
        "2 of the 5 goals or phrases lack a box and are left out."
    )
    assert [goal.text for goal in pictures.sample(0).told] == ["the man", "a mug"]
    assert open_file(goals_file(tmp_path, _goal("the man", 1))).note.endswith("than 2 pixels).")
    assert open_file(phrase_file(tmp_path / "phrases")).note == ""


def test_phrases_without_a_box_are_counted_in_both_forms(tmp_path: Path) -> None:
    path = phrase_file(tmp_path / "one")
    document = json.loads(path.read_text())
    document["annotations"][2]["bbox"] = [0, HEIGHT, 20, 20]
    path.write_text(json.dumps(document))
    assert open_file(path).note == (
        f"{path}: 1 of the 3 boxes are left out (1 outside the picture); 1 of the 3 goals or phrases lack a "
        "box and are left out."
    )
    path = pair(tmp_path / "two")
    instances = tmp_path / "two" / "instances.json"
    document = json.loads(instances.read_text())
    document["annotations"][0]["iscrowd"] = 1
    instances.write_text(json.dumps(document))
    assert open_file(path).note == (
        f"{path}: 1 of the 2 boxes are left out (1 of a crowd); 2 of the 3 goals or phrases lack a box and "
        "are left out."
    )


def test_a_ref_with_the_box_of_another_picture_is_refused(tmp_path: Path) -> None:
    path = pair(tmp_path)
    document = json.loads((tmp_path / "instances.json").read_text())
    document["images"] += [{**document["images"][0], "id": 101, "file_name": "1.jpg"}]
    document["annotations"][1]["image_id"] = 101
    (tmp_path / "instances.json").write_text(json.dumps(document))
    said = r"entry 1 is about the image 100 and names the annotation 2, which is of the image 101"
    with pytest.raises(TrainingDataError, match=said):
        open_file(path)


def test_the_command_says_what_of_the_data_is_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = goals_file(tmp_path / "data", _goal("the man", 1), _goal("out", 3))
    train(TrainingRun(_config(tmp_path, 1), tmp_path / "out", data=(path,), stages=("detection",)))
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("groma: ")]
    assert line == f"groma: {open_file(path).note}"


def test_pictures_that_lvis_names_by_their_place_on_the_web(tmp_path: Path) -> None:
    path = detection_file(tmp_path / "coco" / "train2017")
    document = json.loads(path.read_text())
    for image in document["images"]:
        name = image.pop("file_name")
        image.update(coco_url=f"http://images.cocodataset.org/train2017/{name}", neg_category_ids=[9])
    path.write_text(json.dumps(document))
    pictures = open_file(path, tmp_path / "coco")
    assert len(pictures.objects) == 2 and pictures.sample(0).rgb.shape == (HEIGHT, WIDTH, 3)


def test_a_place_on_the_web_that_is_none_is_named(tmp_path: Path) -> None:
    image = {"id": 7, "coco_url": "http://[x/a.jpg", "width": 80, "height": 60}
    (tmp_path / "a.json").write_text(json.dumps({"images": [image], "annotations": []}))
    with pytest.raises(
        TrainingDataError, match=r"a\.json: images\[0\] \(id 7\) has the coco_url .*, which is no URL"
    ):
        open_file(tmp_path / "a.json")


def test_pictures_of_another_size_than_their_annotations_are_refused(tmp_path: Path) -> None:
    """All at once and before the first step; those whose header is not read, when they are opened."""
    path = detection_file(tmp_path)
    small = np.full((HEIGHT // 2, WIDTH // 2, 3), 90, np.uint8)
    webp = cv2.imencode(".webp", small)[1].tobytes()
    (tmp_path / "1.jpg").write_bytes(webp)
    with pytest.raises(TrainingDataError, match=r"1.jpg has 80x60 pixels and its annotations say 160x120"):
        open_file(path).sample(1)
    cv2.imwrite(str(tmp_path / "0.jpg"), small)
    (tmp_path / "1.jpg").write_bytes(cv2.imencode(".png", small)[1].tobytes())
    with pytest.raises(TrainingDataError) as caught:
        open_file(path)
    assert str(caught.value) == (
        f"2 of the 2 pictures that {path} names have another size than it says, beginning with "
        f"{tmp_path / '0.jpg'}, {tmp_path / '1.jpg'}; take the pictures that were annotated, scale their "
        "boxes, or leave them out of the file."
    )


def _config(folder: Path, steps: int) -> Path:
    """CONFIG without scenes as a file; one worker."""
    stages = {
        name: dataclasses.asdict(dataclasses.replace(getattr(CONFIG, name), steps=steps)) for name in STAGES
    }
    path = folder / f"{steps}.yaml"
    path.write_text(
        yaml.safe_dump(json.loads(json.dumps({**stages, "network": CONFIG.network.to_dict(), "workers": 1})))
    )
    return path


def _weights(path: Path) -> dict[str, torch.Tensor]:
    weights: dict[str, torch.Tensor] = torch.load(path, weights_only=True)["model"]
    return weights


@pytest.mark.parametrize("form", list(FORMS))
def test_a_file_trains_every_stage_and_resumes_with_the_same_bits(form: str, tmp_path: Path) -> None:
    data = FORMS[form](tmp_path / "data")
    held_out = (data,) if form == "detection" else ()
    run = TrainingRun(
        _config(tmp_path, 2), tmp_path / "whole", tmp_path / "bundle", resume=True, data=(data,)
    )
    train(dataclasses.replace(run, held_out=held_out))
    for stage in STAGES:
        for steps in (1, 2):  # one step, stopped, then the second from the checkpoint
            train(
                dataclasses.replace(
                    run, config=_config(tmp_path, steps), out=tmp_path / "parts", bundle=None, stages=(stage,)
                )
            )
    for stage in STAGES:
        whole, parts = (_weights(tmp_path / name / f"{stage}.pt") for name in ("whole", "parts"))
        assert {name for name in whole if not torch.equal(whole[name], parts[name])} == set(), stage
    manifest = json.loads((tmp_path / "bundle" / "manifest.json").read_text())
    assert "pictures of" in manifest["trained_on"] and not manifest["licence"]


TOGETHER = """
import sys
from pathlib import Path
from groma_ros.cli import main
folder, data = map(Path, sys.argv[1:])
for steps, out in ((2, "whole"), (1, "parts"), (2, "parts")):
    places = ["--config", folder / f"{steps}.yaml", "--out", folder / out, "--data", data]
    sys.argv = ["groma", "train", "--resume", "--stages", "detection", *map(str, places)]
    try:
        main()
    except SystemExit as end:
        assert not end.code
"""


def test_torchrun_processes_share_the_work_and_resume_with_the_same_bits(tmp_path: Path) -> None:
    data = detection_file(tmp_path / "data")
    for steps in (1, 2):
        _config(tmp_path, steps)
    (tmp_path / "together.py").write_text(TOGETHER)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*command, str(tmp_path / "together.py"), str(tmp_path), str(data)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    whole, parts = (_weights(tmp_path / name / "detection.pt") for name in ("whole", "parts"))
    assert {name for name in whole if not torch.equal(whole[name], parts[name])} == set()
    train(TrainingRun(tmp_path / "2.yaml", tmp_path / "alone", data=(data,), stages=("detection",)))
    other = _weights(tmp_path / "alone" / "detection.pt")
    assert any(not torch.equal(whole[name], other[name]) for name in whole), (
        "two processes learnt from no more than one"
    )


def test_a_config_without_scenes_wants_files(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="names no scenes to render; give --data"):
        train(TrainingRun(_config(tmp_path, 1), tmp_path / "out"))


def test_the_papers_recipe_runs_at_a_small_size(tmp_path: Path) -> None:
    shipped = TrainConfig.load(Path(__file__).parents[2] / "config" / "train_paper.yaml")
    network = shipped.network
    assert (
        network.language.hidden_size,
        network.backbone.num_hidden_layers,
        network.proposer.num_queries,
    ) == (4096, 24, 300)
    document = yaml.safe_load((Path(__file__).parents[2] / "config" / "train_paper.yaml").read_text())
    document["network"] = CONFIG.network.to_dict()
    for stage in STAGES:
        document[stage].update(steps=2, batch=2, warmup=1, **({"size": 112} if stage == "detection" else {}))
    path = tmp_path / "paper.yaml"
    path.write_text(yaml.safe_dump(document))
    data = phrase_file(tmp_path / "data")
    train(TrainingRun(path, tmp_path / "out", tmp_path / "bundle", data=(data,)))
    detection, alignment, language = (_weights(tmp_path / "out" / f"{stage}.pt") for stage in STAGES)
    torch.manual_seed(shipped.seed)
    fresh = Groma(CONFIG.network).state_dict()

    def changed(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor], part: str) -> bool:
        return any(not torch.equal(before[name], after[name]) for name in after if name.startswith(part))

    assert not changed(fresh, detection, "perceiver.vis_encoder") and changed(
        fresh, detection, "perceiver.ddetr_transformer"
    )
    assert not changed(detection, alignment, "llm.") and changed(detection, alignment, "region_encoder")
    assert not torch.equal(alignment["new_input_embs.weight"], alignment["extra_lm_head.weight"])
    assert changed(alignment, language, "llm.") and not changed(alignment, language, "perceiver")
    assert Bundle.load(tmp_path / "bundle").prompt == PUBLISHED_TEMPLATE.to_dict()


def test_fine_tuning_runs_at_a_small_size(
    small_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command of docs/fine-tuning.md: from a converted model by its name, the stage alignment alone."""
    config = Path(__file__).parents[2] / "config" / "finetune_7b.yaml"
    assert TrainConfig.load(config).network.language.num_hidden_layers == 32
    monkeypatch.setenv("GROMA_MODELS", str(tmp_path / "models"))
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "groma-7b").symlink_to(small_model)
    document = yaml.safe_load(config.read_text())
    document["network"] = Bundle.load(small_model).network
    document["alignment"].update(steps=2, batch=2, warmup=1, rate=0.01)
    path = tmp_path / "finetune.yaml"
    path.write_text(yaml.safe_dump(document))
    data = phrase_file(tmp_path / "data")
    run = TrainingRun(
        path, tmp_path / "out", tmp_path / "mine", stages=("alignment",), start=Path("groma-7b"), data=(data,)
    )
    train(run)
    made = Bundle.load(tmp_path / "mine")
    before, after = (load_file(bundle.file(WEIGHTS)) for bundle in (Bundle.load(small_model), made))
    changed = {key.split(".")[0] for key in after if not torch.equal(before[key].float(), after[key].float())}
    assert changed <= {"region_encoder", "img_txt_bridge", "new_input_embs", "extra_lm_head"}
    assert {"region_encoder", "img_txt_bridge"} <= changed
    assert made.file("tokenizer.model").read_bytes() == (small_model / "tokenizer.model").read_bytes()
