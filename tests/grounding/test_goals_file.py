"""Goals in a YAML file: valid content, and the sentence for everything else."""

from pathlib import Path

import numpy as np
import pytest

from groma_ros.grounding.goals import MAX_REGIONS, check_goal, read_goals
from groma_ros.types import Goal

ROOT = Path(__file__).parents[2]


def test_texts_and_mappings(tmp_path: Path) -> None:
    path = tmp_path / "goals.yaml"
    path.write_text(
        "goals:\n- the red mug\n- 42\n- text: both cups\n  kind: all\n  min_score: 0.3\n- {text: 'yes'}\n"
    )
    found = [(goal.text, goal.kind, goal.min_score) for goal in read_goals(path)]
    assert found == [
        ("the red mug", "auto", 0.0),
        ("42", "auto", 0.0),
        ("both cups", "all", 0.3),
        ("yes", "auto", 0.0),
    ]


def test_a_null_in_quotes_is_a_text(tmp_path: Path) -> None:
    path = tmp_path / "goals.yaml"
    path.write_text("goals:\n- 'null'\n- text: \"~\"\n")
    assert [goal.text for goal in read_goals(path)] == ["null", "~"]


def test_the_demo_s_goals() -> None:
    goals = read_goals(ROOT / "demo" / "goals.yaml")
    assert len(goals) == 8
    assert (goals[2].text, goals[2].kind, goals[2].min_score) == ("all the blue objects", "all", 0.3)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (
            "goals:\n- the mug\n- txt: the cup\n",
            "line 3: the key 'txt' is not known; a goal has the keys text, kind, min_score.",
        ),
        ("goal:\n- the mug\n", "line 1: the key 'goal' is not known"),
        (
            "goals:\n- text: a\n  kind: some\n",
            "line 2: the goal kind 'some' is unknown; use one of auto, one, all.",
        ),
        (
            "goals:\n- a\n- text: b\n  kind: chat\n",
            "line 3: the goal kind 'chat' is answered in words and cannot stand; use one of auto, one, all.",
        ),
        ("goals:\n- text: a\n  kind: null\n", "line 2: the goal kind 'null' is unknown; use one of auto"),
        ("goals:\n- a\n- text: null\n", "line 3: the key 'text' holds null, which is no text; write a goal"),
        ("goals:\n- ~\n", "line 2: the key 'text' holds ~, which is no text"),
        ("goals:\n- text:\n  kind: all\n", "line 2: The goal is empty"),
        (
            "goals:\n- text: a\n  min_score: much\n",
            "line 3: the key 'min_score' holds 'much' and must hold a number",
        ),
        (
            "goals:\n- text: a\n  min_score: 2\n",
            "line 2: The goal's min_score is 2.0; it must be between 0 and 1.",
        ),
        ("goals:\n- kind: all\n", "line 2: the key 'text' is missing."),
        ("goals:\n- text: [a]\n", "line 2: the key 'text' holds a sequence and must hold a text."),
        ("goals:\n- - a\n", "line 2: the key 'text' holds a sequence"),
        ("goals: []\n", "hold no goals"),
        (
            "goals: !!python/object/apply:os.system [id]\n",
            "in line 1: the tag python/object/apply:os.system is not",
        ),
        ("goals:\n- a\n- !include b.yaml\n", "in line 3: the tag !include is not of a plain value"),
        ("goals:\n", "hold no goals"),
        ("- the mug\n", "must be a mapping with the key goals"),
        ("", "must be a mapping with the key goals"),
        ("goals:\n- 'the mug\n", "it is not YAML: in line"),
        ("goals:\n- a\ngoals:\n- b\n", "line 3: the key 'goals' stands there twice."),
        ("goals:\n- {text: a, text: b}\n", "line 2: the key 'text' stands there twice in one goal."),
        ("? [a, b]\n: x\n", "in line 1: a key is a sequence and must be a text."),
        ("goals:\n- ''\n", "line 2: The goal is empty"),
        (
            "goals:\n- a\n- b\n- {text: a, kind: all}\n",
            "line 4: the goal 'a' stands there twice, and differently.",
        ),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, content: str, sentence: str) -> None:
    path = tmp_path / "goals.yaml"
    path.write_text(content)
    with pytest.raises(ValueError, match="goals.yaml") as caught:
        read_goals(path)
    assert sentence in str(caught.value)


def test_a_missing_or_binary_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="cannot be read: No such file"):
        read_goals(tmp_path / "none.yaml")
    (tmp_path / "binary.yaml").write_bytes(b"\x80\x81goals")
    with pytest.raises(ValueError, match="it is not YAML"):
        read_goals(tmp_path / "binary.yaml")


def test_texts_as_people_write_them(tmp_path: Path) -> None:
    """A byte order mark, CRLF, comments, an anchor used once or twice, UTF-16."""
    path = tmp_path / "goals.yaml"
    text = "# what to find\r\ngoals:\r\n- &mug the red mug  # here\r\n- {text: *mug2, kind: all}\r\n"
    text = text.replace("*mug2", "'a b'")
    for data in (b"\xef\xbb\xbf" + text.encode(), text.encode(), text.encode("utf-16")):
        path.write_bytes(data)
        assert [goal.text for goal in read_goals(path)] == ["the red mug", "a b"]


def test_line_separators_belong_to_a_goal(tmp_path: Path) -> None:
    path = tmp_path / "goals.yaml"
    path.write_text('goals:\n- "the\\u2028red mug"\n- "a\\x85b"\n')
    assert [goal.text for goal in read_goals(path)] == ["the\u2028red mug", "a\x85b"]


def test_a_repeated_goal_is_asked_once(tmp_path: Path) -> None:
    path = tmp_path / "goals.yaml"
    path.write_text("goals:\n- a\n- b\n- {text: a, kind: auto}\n")
    assert [goal.text for goal in read_goals(path)] == ["a", "b"]


def test_a_goal_has_at_most_as_many_regions_as_groma() -> None:
    box = np.array([[0, 0, 9, 9]], np.float32)
    check_goal(Goal("", "describe", regions=box.repeat(MAX_REGIONS, 0)))
    with pytest.raises(ValueError, match="The goal has 101 regions; the limit is 100."):
        check_goal(Goal("", "describe", regions=box.repeat(MAX_REGIONS + 1, 0)))
