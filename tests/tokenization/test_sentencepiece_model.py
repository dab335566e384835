"""SentencePiece models: recorded cases (tests/data/tokenizer/reference_cases.json says which), files that are
refused, and models written from pieces."""

import json
import pickle
from pathlib import Path

import pytest

from groma_ros.tokenization.sentencepiece_model import (
    BYTE,
    CONTROL,
    NORMAL,
    UNKNOWN,
    UNUSED,
    Piece,
    SentencePieceModel,
)
from groma_ros.training.vocabulary import learn_pieces, train_bpe

DATA = Path(__file__).parents[1] / "data" / "tokenizer"
CASES = json.loads((DATA / "reference_cases.json").read_text())
FIXED = (Piece("<unk>", 0, UNKNOWN), Piece("<s>", 0, CONTROL), Piece("</s>", 0, CONTROL))


@pytest.fixture(scope="module")
def model() -> SentencePieceModel:
    return SentencePieceModel.load(DATA / "reference.model")


def small(extra: tuple[Piece, ...]) -> SentencePieceModel:
    return SentencePieceModel.from_pieces([*FIXED, *extra], byte_fallback=False, add_dummy_prefix=False)


def texts(model: SentencePieceModel, text: str, dummy_prefix: bool = True) -> list[str]:
    return [model.piece(index).text for index in model.encode(text, dummy_prefix=dummy_prefix)]


def test_encoding_equals_the_recorded_ids(model: SentencePieceModel) -> None:
    for text, ids in CASES["plain"]:
        assert model.encode(text) == ids, text


def test_decoding_equals_the_recorded_texts(model: SentencePieceModel) -> None:
    for ids, text in CASES["decoded"]:
        assert model.decode(ids) == text, ids


def test_encoding_without_the_dummy_prefix_adds_no_word_mark(model: SentencePieceModel) -> None:
    assert "".join(texts(model, "the")) == "\u2581the"
    assert "".join(texts(model, "the", dummy_prefix=False)) == "the"
    assert model.decode(model.encode(" the", dummy_prefix=False)) == "the"


def test_a_pickled_model_encodes_alike(model: SentencePieceModel) -> None:
    copy = pickle.loads(pickle.dumps(model))
    assert copy.to_bytes() == model.to_bytes() and copy.encode("the red mug") == model.encode("the red mug")


def test_pieces_and_flags_are_written_as_given() -> None:
    letters = tuple(Piece(letter, -100.0) for letter in "abc")
    assert texts(small((*letters, Piece("ab", -1.0), Piece("bc", -2.0))), "abc") == ["ab", "c"]
    assert texts(small((*letters, Piece("ab", -2.0), Piece("bc", -1.0))), "abc") == ["a", "bc"]
    pieces = (*letters, Piece("ab", -1.0, UNUSED), Piece("abc", -2.0))
    written = small(pieces)
    assert texts(written, "abcab") == ["abc", "a", "b"]
    assert [written.piece(index) for index in range(len(written))] == [*FIXED, *pieces]
    assert (written.unk_id, written.bos_id, written.eos_id) == (0, 1, 2)
    squeezing = SentencePieceModel.from_pieces(
        [*FIXED, Piece("a", -1.0), Piece("\u2581", -2.0)], byte_fallback=False, remove_extra_whitespaces=True
    )
    assert texts(squeezing, "  a   a ") == ["\u2581", "a", "\u2581", "a"]


def test_a_lone_surrogate_becomes_the_replacement_character(model: SentencePieceModel) -> None:
    assert model.encode("a\ud800") == model.encode("a\ufffd")


def test_broken_files_are_refused_in_a_sentence(model: SentencePieceModel, tmp_path: Path) -> None:
    data = model.to_bytes()
    path = tmp_path / "tokenizer.model"
    for content in (data[:1000], b"\xff" * 64, b'{"version": "1.0"}'):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"tokenizer.model cannot be used: it is"):
            SentencePieceModel.load(path)
    path.write_bytes(b"")
    with pytest.raises(ValueError, match=r"tokenizer.model is empty; fetch it again"):
        SentencePieceModel.load(path)
    with pytest.raises(ValueError, match="does not exist"):
        SentencePieceModel.load(tmp_path / "absent.model")


def test_an_id_outside_the_vocabulary_is_named(model: SentencePieceModel) -> None:
    for index in (len(model), -1):
        with pytest.raises(ValueError, match=f"id {index} is outside"):
            model.decode([index])
        with pytest.raises(ValueError, match=f"id {index} is outside"):
            model.piece(index)


CORPUS = [
    f"find <p>the {colour} {kind}</p>:"
    for colour in ("red", "green", "blue")
    for kind in ("box", "ball", "mug")
] * 3


def test_a_trained_vocabulary_has_the_llama_layout_and_its_size() -> None:
    trained = learn_pieces(CORPUS, vocab_size=300)
    assert [piece.text for piece in trained[:4]] == ["<unk>", "<s>", "</s>", "<0x00>"]
    assert [piece.type for piece in trained[:3]] == [UNKNOWN, CONTROL, CONTROL]
    assert all(piece.type == BYTE for piece in trained[3:259])
    assert len(trained) == 300
    learned = trained[259:]
    assert all(piece.type == NORMAL for piece in learned)
    assert [piece.score for piece in learned] == sorted((piece.score for piece in learned), reverse=True)


def test_training_is_deterministic_and_loses_nothing() -> None:
    trained = train_bpe(CORPUS, vocab_size=320)
    assert train_bpe(list(CORPUS), vocab_size=320).to_bytes() == trained.to_bytes()
    for text in ("the red box", "a violet 猫 \U0001f600\n", "RED  box"):
        assert trained.decode(trained.encode(text)) == text
    assert texts(trained, "the red mug", dummy_prefix=False) == [
        "the",
        "\u2581red",
        "\u2581mug",
    ]


def test_a_vocabulary_too_small_for_its_alphabet_is_refused() -> None:
    with pytest.raises(ValueError, match="vocab_size is 260"):
        train_bpe(CORPUS, vocab_size=260)
