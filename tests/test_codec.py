"""The codec: what was compressed comes back, in as many bytes as score() has bits; damage is never taken for text."""

import subprocess
import sys
import zlib

import numpy as np
import pytest
from conftest import RARE
from hypothesis import given, settings
from hypothesis import strategies as st
from streams import fresh

import charstat
from charstat import Alphabet, Decoder, Encoder, FormatError, Model, StateError, UserError, build_model
from charstat.codec import coder as arithmetic
from charstat.codec.container import BLOCK_CHARS, BYTES, TEXT, Header, Reader
from charstat.codec.files import choose_source, compress, decompress
from charstat.codec.sources import bytes_of, halves_of, model_checksum


def encoded(text, model=None, **options):
    encoder = Encoder(model, **options)
    return encoder.encode(text) + encoder.finish()


def decoded(data, model=None):
    decoder = Decoder(model)
    content = decoder.decode(data)
    decoder.finish()
    return content


# the arithmetic coder ----------------------------------------------------------------------------------------------------


def bisect_both_ways(edges, indices):
    encoder = arithmetic.with_room(arithmetic.new_encoder(1), 64 * (1 + len(indices)))
    for i in indices:
        arithmetic.code_index(*encoder, False, edges, i)
    data = arithmetic.finish(encoder)
    decoder = arithmetic.new_decoder(data)
    return data, [arithmetic.code_index(*decoder, True, edges, 0) for _ in indices]


@given(st.lists(st.integers(1, 1 << 24), min_size=1, max_size=9), st.data())
def test_a_coded_index_comes_back_at_its_price(counts, data):
    edges = np.cumsum([0, *counts], dtype=np.int64)
    indices = data.draw(st.lists(st.integers(0, len(counts) - 1), max_size=60))
    code, back = bisect_both_ways(edges, indices)
    assert back == indices
    price_bits = -sum(np.log2(counts[i] / edges[-1]) for i in indices)
    assert len(code) <= price_bits / 8 * 1.001 + 2


def test_a_carry_runs_through_bytes_of_ones():
    """Always the upper, likely part and then the lower of a few: low creeps up to a row of 255s that a carry clears."""
    rng = np.random.default_rng(3)
    edges = np.array([0, (1 << 24) - 1, 1 << 24], np.int64)
    for _ in range(40):
        indices = (rng.random(3000) < 0.001).astype(int).tolist()
        assert bisect_both_ways(edges, indices)[1] == indices


def test_no_decisions_are_no_bytes():
    assert arithmetic.finish(arithmetic.new_encoder(1)) == b""


# round trips -------------------------------------------------------------------------------------------------------------


@settings(max_examples=100)
@given(st.text(st.one_of(st.sampled_from("ab \n" + RARE), st.characters()), max_size=200))
def test_any_text_comes_back_with_a_model(model, text):
    assert decoded(encoded(text, model), model) == text


def test_lone_surrogates_come_back(model):
    text = "a\udc80b\ud800"
    assert decoded(encoded(text, model), model) == text


def test_held_out_text_with_a_crowded_alphabet(crowded_model, held_out, crowded_text):
    text = held_out + crowded_text[:3000]
    assert decoded(encoded(text, crowded_model), crowded_model) == text


@settings(max_examples=60)
@given(st.one_of(st.binary(max_size=300), st.text(max_size=100).map(str.encode)))
def test_any_bytes_come_back_without_a_model(data):
    assert decompress(compress(data).data) == data


FILES = {
    "empty": b"",
    "one byte": b"x",
    "one byte that is no UTF-8": b"\xff",
    "every byte": bytes(range(256)) * 3,
    "equal bytes": b"a" * 100_000,
    "line ends": b"a\r\nb\nc\r" * 100,
    "latin-1": ("Größe und Ähnliches. " * 200).encode("latin-1"),
    "image": np.add.outer(np.arange(64) * 3, np.arange(64) * 2).astype(np.uint8).tobytes(),
    "noise": np.random.default_rng(5).bytes(5000),
}


@pytest.mark.parametrize("name", FILES)
def test_files_come_back_without_a_model(name):
    data = FILES[name]
    packed = compress(data)
    assert decompress(packed.data) == data
    assert len(packed.data) < len(data) * 1.02 + 200


def test_an_executable_comes_back(model):
    with open(sys.executable, "rb") as f:
        data = f.read(60_000)
    packed = compress(data)
    assert packed.mode == "bytes" and decompress(packed.data) == data
    assert len(packed.data) < 1.03 * len(zlib.compress(data, 9))
    assert decompress(compress(data[:5000], model).data, model) == data[:5000]


@pytest.mark.parametrize(
    ("data", "mode"),
    [
        (lambda english: english[:60_000].encode(), TEXT),
        (lambda english: english[:60_000].encode() + b"\xff\x00", TEXT),
        (lambda english: english[:60_000].replace("e", "é").encode("latin-1", "replace"), TEXT),
        (lambda english: "".join(chr(0x4E00 + i * i % 3001) for i in range(2000)).encode(), BYTES),
        (lambda english: FILES["noise"], BYTES),
        (lambda english: b"", BYTES),
    ],
)
def test_text_is_taken_as_text_and_bytes_as_bytes(english, data, mode):
    assert choose_source(data(english)).mode == mode


@given(st.binary())
def test_halves_are_bytes(data):
    assert bytes_of(halves_of(data)) == data


# size ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("which", ["model", "crowded_model"])
def test_the_size_is_what_score_says(which, english, held_out, request):
    model = request.getfixturevalue(which)
    text = held_out + english[210_000:240_000]
    promised_bytes = fresh(model).score(text).sum() / 8
    assert promised_bytes < len(encoded(text, model)) < 1.001 * promised_bytes + 64


def test_the_decisions_are_those_of_score(model, held_out):
    """Not nearly: the mixture has learned the same, bit for bit, from coding and from scoring."""
    encoder, decoder, stream = Encoder(model), Decoder(model), fresh(model)
    data = encoder.encode(held_out) + encoder.finish()
    decoder.decode(data)
    stream.score(held_out)
    for coding in (encoder._stream, decoder._stream):
        for mine, scored in zip(coding.mixer, stream.mixer, strict=True):
            assert np.array_equal(mine, scored)
        assert np.array_equal(coding.probabilities(), stream.probabilities())


# streams -------------------------------------------------------------------------------------------------------------------


@given(st.lists(st.integers(0, 1500), max_size=5), st.integers(1, 700))
@settings(max_examples=10)
def test_how_a_text_is_cut_changes_nothing(model, held_out, cuts, block_chars):
    text, cuts = held_out[:1500], sorted(cuts)
    whole = encoded(text, model, block_chars=block_chars)
    encoder, decoder = Encoder(model, block_chars=block_chars), Decoder(model)
    data = b"".join(encoder.encode(text[a:b]) for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)) + encoder.finish()
    assert data == whole
    assert "".join(decoder.decode(data[i : i + 7]) for i in range(0, len(data), 7)) == text
    decoder.finish()


def test_flush_gives_all_that_was_encoded(model):
    encoder, decoder = Encoder(model), Decoder(model)
    assert decoder.decode(encoder.encode("The statement") + encoder.flush()) == "The statement"
    assert decoder.decode(encoder.encode(" is executed") + encoder.flush()) == " is executed"
    assert decoder.decode(encoder.flush() + encoder.finish()) == ""
    decoder.finish()


def test_streams_without_a_model(english):
    text = english[:3000]
    assert decoded(encoded(text, alphabet=Alphabet.from_text(text))) == text
    assert decoded(encoded(text.encode())) == text.encode()


def test_what_encoders_do_not_take(model):
    with pytest.raises(TypeError, match="takes str, not bytes"):
        Encoder(model).encode(b"abc")
    with pytest.raises(TypeError, match="takes bytes, not str"):
        Encoder().encode("abc")
    with pytest.raises(TypeError, match="its own alphabet"):
        Encoder(model, order=3)
    with pytest.raises(ValueError, match="block_chars"):
        Encoder(model, block_chars=BLOCK_CHARS + 1)
    encoder = Encoder(model)
    encoder.finish()
    assert encoder.finish() == b""
    with pytest.raises(StateError):
        encoder.encode("more")


# models ------------------------------------------------------------------------------------------------------------------


def test_another_model_is_refused_by_name(model, crowded_model, tmp_path):
    saved = model.save(tmp_path / "mine")
    data = encoded("The statement", saved)
    assert decoded(data, model) == "The statement"  # in memory or on disk, it is the same model
    with pytest.raises(UserError, match=r"compressed with the model mine \(checksum .*, not with this one"):
        decoded(data, crowded_model)
    with pytest.raises(UserError, match="with the model mine .*: name its directory with --model"):
        decoded(data)


def test_the_checksum_is_of_what_predicts(model, train_text, tmp_path):
    assert model_checksum(model) == model_checksum(Model.load(model.save(tmp_path / "m").path))
    others = [build_model(train_text[:-1], order=8, threads=1), build_model(train_text, order=8, contexts="chars", threads=1)]
    assert len({model_checksum(m) for m in (model, *others)}) == 3


def test_another_engine_is_refused(model):
    encoder = Encoder(model)
    data = encoder.source.header(encoder._stream.engine ^ 1).pack()
    with pytest.raises(FormatError, match=f"compressed by charstat {charstat.__version__} with another mixture"):
        Decoder(model).decode(data)


# damage ------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def packed(model, english):
    return encoded(english[210_000:211_200], model, block_chars=500)


def test_damage_is_found(model, packed):
    """Any change of any byte, any cut, any addition: FormatError or, of a header's model, UserError; never other text."""
    rng = np.random.default_rng(11)
    for i in range(120):
        data = bytearray(packed)
        at = int(rng.integers(len(data)))
        match i % 4:
            case 0:
                data[at] ^= 1 << int(rng.integers(8))
            case 1:
                del data[at:]
            case 2:
                data[at:at] = rng.bytes(int(rng.integers(1, 9)))
            case 3:
                data[at : at + 8] = rng.bytes(8)
        with pytest.raises(UserError):
            decoded(bytes(data), model)
            assert bytes(data) == packed


def test_errors_name_the_block(model, packed):
    reader = Reader()
    reader.feed(packed)
    reader.header()
    starts = []
    while reader.next_part():
        starts.append(len(packed) - len(reader._bytes))
    first, second = starts[:2]
    damaged = bytearray(packed)
    damaged[second - 10] ^= 4
    decoder = Decoder(model)
    with pytest.raises(FormatError, match="block 2 is damaged: its checksum does not match"):
        decoder.decode(bytes(damaged))
    with pytest.raises(FormatError, match="truncated: it ends within block 2"):
        decoded(packed[: second - 1], model)
    swapped = packed[:first] + packed[second:]
    with pytest.raises(FormatError, match="block 2 is damaged"):
        decoded(swapped, model)
    with pytest.raises(FormatError, match="3 bytes follow its end"):
        decoded(packed + b"abc", model)


def test_other_numbers_are_said_not_decoded(model, packed):
    """A decoder that computes something else: the code is intact, the text is not, and none of it is given out."""
    decoder = Decoder(model)
    decoder.decode(packed[:80])
    decoder._stream.state.mixer.weights[:] += np.float32(0.01)
    with pytest.raises(FormatError, match="block 1 is intact, but decodes to something else"):
        decoder.decode(packed[80:])


@pytest.mark.parametrize("data", [b"", b"\x89", b"PK\x03\x04 no", b"\x89PNG\r\n\x1a\n" * 4, b"\x89CS"])
def test_foreign_and_empty_files(data):
    with pytest.raises(FormatError, match="not a file that charstat compressed|truncated: it ends within the header"):
        decoded(data)


def test_a_later_format_is_refused(packed):
    with pytest.raises(FormatError, match="format version 9; this charstat reads version 1"):
        decoded(packed[:4] + b"\x09" + packed[5:])


def sealed(header, number=0):
    return header + zlib.crc32(header, number).to_bytes(4, "little")


@pytest.mark.parametrize(
    "alphabet",
    [
        {"chars": ["a"], "tree": "(.", "rare": {}},
        {"chars": ["a", "a"], "tree": "((...", "rare": {}},
        {"chars": ["a"], "tree": "(..", "rare": {"b": -3}},
        {"chars": ["a"], "tree": "(..", "rare": {"bc": 3}},
        {"chars": 7, "tree": "(..", "rare": {}},
        ["a"],
    ],
)
def test_a_forged_alphabet_is_refused(alphabet):
    """With a right checksum: what is in the header is checked, not believed."""

    class Forged(Alphabet):
        def to_dict(self):
            return alphabet

    real = Alphabet.from_text("ab")
    header = Header(2, "0", 0, order=3, alphabet=Forged(real.chars, real.tree)).pack()
    with pytest.raises(FormatError, match="the header is damaged"):
        decoded(header)


def test_a_forged_size_is_refused(model, packed):
    reader = Reader()
    reader.feed(packed)
    reader.header()
    header = packed[: len(packed) - len(reader._bytes)]
    with pytest.raises(FormatError, match="block 1 is damaged: it claims"):
        decoded(header + b"\xff\xff\xff\xff\x07", model)
    with pytest.raises(FormatError, match=r"block 1 is damaged: it claims 34,359,738,367 bytes for 1 characters"):
        decoded(header + b"\x01\xff\xff\xff\xff\x7f", model)
    with pytest.raises(FormatError, match="its end is that of another text"):
        decoded(header + sealed(b"\0\x01" + bytes(4), 1), model)


def test_two_processes_write_the_same_bytes(tmp_path, english):
    """What one process compressed, another one reads: nothing depends on the process's hash seed or addresses."""
    path = tmp_path / "text.txt"
    path.write_bytes(english[:6000].encode())
    code = "import sys; from charstat.codec.files import compress; sys.stdout.buffer.write(compress(open(sys.argv[1], 'rb').read()).data)"
    other = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, check=True).stdout
    assert other == compress(path.read_bytes()).data
    assert decompress(other) == path.read_bytes()
