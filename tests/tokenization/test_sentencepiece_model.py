"""Our SentencePiece against cases recorded from the library itself (tests/data/tokenizer/reference_cases.json
says which)."""

import dataclasses
import json
import time
from pathlib import Path

import pytest

from groma_ros.tokenization.sentencepiece_model import (
    BYTE,
    CONTROL,
    NORMAL,
    UNKNOWN,
    UNUSED,
    USER_DEFINED,
    Piece,
    SentencePieceModel,
    bytes_field,
    int_field,
)
from groma_ros.training.vocabulary import train_bpe

DATA = Path(__file__).parents[1] / "data" / "tokenizer"
CASES = json.loads((DATA / "reference_cases.json").read_text())


@pytest.fixture(scope="module")
def model() -> SentencePieceModel:
    return SentencePieceModel.load(DATA / "reference.model")


def small(extra: tuple[Piece, ...], **flags: object) -> SentencePieceModel:
    fixed = (Piece("<unk>", 0, UNKNOWN), Piece("<s>", 0, CONTROL), Piece("</s>", 0, CONTROL))
    return SentencePieceModel(
        (*fixed, *extra), **{"byte_fallback": False, "add_dummy_prefix": False, **flags}
    )  # type: ignore[arg-type]


def texts(model: SentencePieceModel, text: str) -> list[str]:
    return [model.pieces[index].text for index in model.encode(text)]


def test_encoding_equals_the_library(model: SentencePieceModel) -> None:
    for text, ids in CASES["plain"]:
        assert model.encode(text) == ids, text


def test_decoding_equals_the_library(model: SentencePieceModel) -> None:
    for ids, text in CASES["decoded"]:
        assert model.decode(ids) == text, ids


def test_a_written_model_reads_back_equal(model: SentencePieceModel, tmp_path: Path) -> None:
    changed = dataclasses.replace(
        model, add_dummy_prefix=False, remove_extra_whitespaces=True, pad_id=-1, unk_surface=" ? "
    )
    changed.save(tmp_path / "tokenizer.model")
    back = SentencePieceModel.load(tmp_path / "tokenizer.model")
    for field in dataclasses.fields(changed):
        assert getattr(back, field.name) == getattr(changed, field.name), field.name


def test_the_better_score_merges_first_and_the_leftmost_among_equals() -> None:
    letters = tuple(Piece(letter, -100.0) for letter in "abc")
    assert texts(small((*letters, Piece("ab", -1.0), Piece("bc", -2.0))), "abc") == ["ab", "c"]
    assert texts(small((*letters, Piece("ab", -2.0), Piece("bc", -1.0))), "abc") == ["a", "bc"]
    assert texts(small((*letters, Piece("aa", -1.0))), "aaa") == ["aa", "a"]


def test_an_unused_piece_is_passed_through_but_never_given_out() -> None:
    pieces = (*(Piece(letter, -9.0) for letter in "abc"), Piece("ab", -1.0, UNUSED), Piece("abc", -2.0))
    assert texts(small(pieces), "abcab") == ["abc", "a", "b"]


def test_a_user_defined_piece_is_never_cut_or_joined() -> None:
    pieces = (*(Piece(letter, -9.0) for letter in "abx"), Piece("ax", -1.0), Piece("xb", 0.0, USER_DEFINED))
    assert texts(small(pieces), "axb") == ["a", "xb"]


def test_without_byte_fallback_a_run_of_unknown_characters_is_one_unknown() -> None:
    assert small((Piece("a", -1.0),)).encode("a猫犬a") == [3, 0, 3]


def test_blanks_are_squeezed_where_the_model_says_so() -> None:
    pieces = (Piece("a", -1.0), Piece("\u2581", -2.0))
    assert texts(small(pieces, remove_extra_whitespaces=True, add_dummy_prefix=True), "  a   a ") == [
        "\u2581",
        "a",
        "\u2581",
        "a",
    ]
    assert small(pieces, remove_extra_whitespaces=True, add_dummy_prefix=True).encode("   ") == []


def test_a_lone_surrogate_becomes_the_replacement_character(model: SentencePieceModel) -> None:
    assert model.encode("a\ud800") == model.encode("a\ufffd")


def test_ten_thousand_characters_take_no_time(model: SentencePieceModel) -> None:
    text = "the man in the red shirt. " * 400
    start = time.perf_counter()
    ids = model.encode(text)
    assert time.perf_counter() - start < 2.0
    assert model.decode(ids) == text


def test_broken_files_are_refused_in_a_sentence(model: SentencePieceModel, tmp_path: Path) -> None:
    data = model.to_bytes()
    path = tmp_path / "tokenizer.model"
    for content in (b"", data[:1000], b"\xff" * 64, b'{"version": "1.0"}'):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="tokenizer.model cannot be used"):
            SentencePieceModel.load(path)
    with pytest.raises(ValueError, match="does not exist"):
        SentencePieceModel.load(tmp_path / "absent.model")


def test_models_we_would_encode_wrongly_are_refused(model: SentencePieceModel) -> None:
    data = model.to_bytes()
    with pytest.raises(ValueError, match="only BPE"):
        SentencePieceModel.from_bytes(data + bytes_field(2, int_field(3, 1)))
    with pytest.raises(ValueError, match="character map"):
        SentencePieceModel.from_bytes(data + bytes_field(3, bytes_field(2, b"map")))
    with pytest.raises(ValueError, match="255 of the 256 byte pieces"):
        pieces = list(model.pieces)
        pieces[[piece.type for piece in pieces].index(BYTE)] = Piece("a byte less")
        dataclasses.replace(model, pieces=tuple(pieces))


def test_an_id_outside_the_vocabulary_is_named(model: SentencePieceModel) -> None:
    with pytest.raises(ValueError, match=f"id {len(model)} is outside"):
        model.decode([len(model)])


CORPUS = [
    f"find <p>the {colour} {kind}</p>:"
    for colour in ("red", "green", "blue")
    for kind in ("box", "ball", "mug")
] * 3


def test_a_trained_vocabulary_has_the_llama_layout_and_its_size() -> None:
    trained = train_bpe(CORPUS, vocab_size=300)
    assert [piece.text for piece in trained.pieces[:4]] == ["<unk>", "<s>", "</s>", "<0x00>"]
    assert [piece.type for piece in trained.pieces[:3]] == [UNKNOWN, CONTROL, CONTROL]
    assert all(piece.type == BYTE for piece in trained.pieces[3:259])
    assert len(trained) == 300
    learned = trained.pieces[259:]
    assert all(piece.type == NORMAL for piece in learned)
    assert [piece.score for piece in learned] == sorted((piece.score for piece in learned), reverse=True)


def test_training_is_deterministic_and_loses_nothing() -> None:
    trained = train_bpe(CORPUS, vocab_size=320)
    assert train_bpe(list(CORPUS), vocab_size=320).to_bytes() == trained.to_bytes()
    for text in ("the red box", "a violet 猫 \U0001f600\n", "RED  box"):
        assert trained.decode(trained.encode(text)) == text
    assert texts(dataclasses.replace(trained, add_dummy_prefix=False), "the red mug") == [
        "the",
        "\u2581red",
        "\u2581mug",
    ]


def test_a_vocabulary_too_small_for_its_alphabet_is_refused() -> None:
    with pytest.raises(ValueError, match="vocab_size is 260"):
        train_bpe(CORPUS, vocab_size=260)
