"""A file is read as plain data that knows its lines, or refused with FILE:LINE; nothing else can happen."""

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from coldstart import yamlfile
from coldstart.errors import DocumentError

TEXT = """\
# a comment
all:
  hosts: {a: {x: 1}, b: {}}
  list:
    - first
    - k: v
base: &base {one: 1, two: 2}
more:
  <<: *base
  two: 22
"""


def test_knows_every_line():
    document = yamlfile.parse(TEXT, "f.yaml")
    assert document.where() == "f.yaml:2"
    assert document.where(("all", "hosts", "b")) == "f.yaml:3"
    assert document.where(("all", "list", 1, "k")) == "f.yaml:6"
    assert document.where(("more", "one")) == "f.yaml:7"
    assert document.where(("more", "two")) == "f.yaml:10"


def test_what_is_not_there_has_its_parents_line():
    document = yamlfile.parse(TEXT, "f.yaml")
    assert document.where(("all", "list", 7, "k")) == "f.yaml:4"
    assert document.where(("nothing",)) == "f.yaml:2"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("off", "off"),
        ("Yes", "Yes"),
        ("true", True),
        ("False", False),
        ("~", None),
        ("", None),
        ("010", 10),
        ("0x1f", 31),
        ("0o17", 15),
        ("-1_000", -1000),
        ("1.5e3", 1500.0),
        ("-.inf", float("-inf")),
        ("2020-01-01", "2020-01-01"),
        ("1:30", "1:30"),
        ("'1'", "1"),
        ("!!str 1", "1"),
        ("! text", "text"),
        ("=", "="),
        ("'<<'", "<<"),
        ("[1, [a]]", [1, ["a"]]),
        ("{nonce}", {"nonce": None}),
        ("'{nonce}'", "{nonce}"),
        ("café", "café"),
    ],
)
def test_values_are_yaml_1_2(text, value):
    """yes, no, on and off stay words."""
    assert yamlfile.parse(f"a: {text}").data == {"a": value}


def test_off_stays_a_word_even_in_yaml_1_1():
    assert yamlfile.parse("%YAML 1.1\n---\na: off").data == {"a": "off"}


@pytest.mark.parametrize(
    ("text", "data"),
    [
        ("a: &x 1\nb: *x", {"a": 1, "b": 1}),
        ("a: &x 1\nb: &x 2\nc: *x", {"a": 1, "b": 2, "c": 2}),
        ("a: &x {k: 1}\nb: &y {k: 2, l: 2}\nc: {<<: [*x, *y], m: 3}", {"k": 1, "l": 2, "m": 3}),
        ("a: &x {k: 1}\nb: &y {<<: *x, l: 2}\nc: {l: 3, <<: *y}", {"k": 1, "l": 3}),
    ],
)
def test_anchors_and_merge_keys_are_read(text, data):
    """A mapping's own key wins over what it merges, the first merged over the second."""
    read = yamlfile.parse(text).data
    assert read == data or read["c"] == data


def test_a_byte_order_mark_and_dos_lines_are_read():
    assert yamlfile.parse(b"\xef\xbb\xbfa: 1\r\nb: 2\r\n").data == {"a": 1, "b": 2}


BOMB = "a: &a [x, x, x, x, x, x, x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 8)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)
MERGE_BOMB = "a: &a {x: 1}\n" + "".join(
    f"{new}: &{new} {{<<: [{', '.join([f'*{old}'] * 8)}]}}\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: [", "f:2: not valid YAML: "),
        ("a: 1\n b: 2", "f:2: not valid YAML: mapping values are not allowed here"),
        ("a:\n\t- b", "f:2: not valid YAML: found character '\\t' that cannot start any token"),
        ("a: 1\nb: *none", "f:2: not valid YAML: found undefined alias 'none'"),
        ("a: 1\n\na: 2", "f:3: duplicate key 'a', first on line 1"),
        ("x:\n  a: 1\n  'a': 2", "f:3: duplicate key 'a', first on line 2"),
        ("a: 1\nb: !vault |\n  123", "f:2: tag !vault: secrets are neither needed nor read here (remove it)"),
        ("a: !mine {}", "f:1: tag !mine: tags are not read"),
        ("a: !mine []", "f:1: tag !mine: tags are not read"),
        ("a: !!binary aGk=", "f:1: tag !!binary: tags are not read"),
        ("a: !!set {b}", "f:1: tag !!set: tags are not read"),
        ("a: !!int b", "f:1: 'b' is not a number of 64 bits (put it in quotes if it is text)"),
        (f"a: {'1' * 5000}", "f:1: '1111"),
        (f"a: 0x{'f' * 16}", "f:1: '0xffffffffffffffff' is not a number of 64 bits"),
        ("a: 1\nb: 'x{{ y }}'", "f:2: a template ({{) (write the value itself: templates are not read"),
        ("a: '{% if %}'", "f:1: a template ({%)"),
        ("'{{ a }}': 1", "f:1: a template ({{)"),
        ("a: 1\nb: {{ y }}", "f:2: a key must be one word, not a mapping or a list (write the value itself: templates"),
        ("a:\n  true: 1", "f:2: a key must be text, not true (put it in quotes)"),
        ("a:\n  1.10: 1", "f:2: a key must be text, not 1.10 (put it in quotes)"),
        ("? \n: 1", "f:1: a key must be text, not empty"),
        ("a: {<<: 1}", "f:1: `<<` takes a mapping"),
        ("a: 1\n---\nb: 1", "f:2: a second document begins here: only one is read (remove the `---`)"),
        ("", "f:1: empty"),
        ("# nothing\n", "f:1: empty"),
        ("---\n- a", "f:2: not a mapping"),
        ("text", "f:1: not a mapping"),
        ("a: 1\nb: \x00", "f:2: not text: a control character"),
        (b"a: 1\nb: \xff", "f:2: not UTF-8 text (save the file as UTF-8)"),
        ("a: 1".encode("utf-16"), "f:1: not UTF-8 text"),
        ('a: "\\ud800"', "f:1: half of a surrogate pair is not text"),
        ('a: "\\UFFFFFFFF"', "f:1: not valid YAML: "),
        ("[\n" * 2000, "f:1: nested too deeply"),
        ("a: " + "[" * 70 + "]" * 70, "f:1: nested too deeply"),
        ("a: &a [*a]", "f:1: nested too deeply"),
        ("a: &a {<<: *a}", "f:1: nested too deeply"),
    ],
)
def test_refuses_with_the_line(text, message):
    with pytest.raises(DocumentError) as error:
        yamlfile.parse(text, "f")
    assert str(error.value).startswith(message)
    assert error.value.exit_code == 2


@pytest.mark.parametrize("bomb", [BOMB, MERGE_BOMB])
def test_aliases_of_aliases_are_bounded(bomb, monkeypatch):
    monkeypatch.setattr(yamlfile, "MAX_VALUES", 5_000)
    with pytest.raises(DocumentError, match="more than 5,000 values"):
        yamlfile.parse(bomb)


def test_refuses_what_cannot_be_read(tmp_path):
    large = tmp_path / "large.yaml"
    large.write_bytes(b"#" * (yamlfile.MAX_BYTES + 1))
    for path, message in (
        (tmp_path / "none.yaml", "cannot be read: No such file or directory"),
        (tmp_path, "cannot be read: Is a directory"),
        (large, "larger than 4 MiB"),
    ):
        with pytest.raises(DocumentError) as error:
            yamlfile.load(path)
        assert str(error.value).startswith(f"{path}: {message}")
    with pytest.raises(DocumentError, match="not a file name"):
        yamlfile.load("a\0b")


def test_loads_a_file(tmp_path):
    file = tmp_path / "f.yaml"
    file.write_text(TEXT)
    document = yamlfile.load(file)
    assert document.text == TEXT
    assert document.where(("base",)) == f"{file}:7"


_YAML = st.lists(st.sampled_from([*"abc:-[]{}&*!|>%@`'\"#?,\\<=~01. \n\t", ": ", "\n  ", "---\n", "<<: *a", "&a "]))


@given(st.text() | st.binary() | _YAML.map("".join))
@example("a: !<x> b")
@example("%YAML 9.9\n--- a")
@example("%TAG ! \n---\n")
@example("!!")
@example("a: |9\n b")
@example("&")
@example("? - a\n")
@settings(max_examples=100, deadline=None)
def test_anything_else_than_a_document_is_a_document_error(data):
    try:
        result = yamlfile.parse(data, "f").where()
    except DocumentError as error:
        result = str(error)
    assert result.startswith("f:")


@pytest.mark.parametrize(("word", "value"), [(True, True), ("yes", True), ("Off", False), ("no", False), ("on", True)])
def test_words_for_booleans(word, value):
    """Where a boolean is wanted, what Ansible reads as one is one."""
    assert yamlfile.as_bool(word) is value


@pytest.mark.parametrize("word", [1, "y", "", None, [True]])
def test_other_words_are_no_booleans(word):
    with pytest.raises(ValueError, match="must be true or false, not "):
        yamlfile.as_bool(word)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("off", False),
        ("Yes", True),
        ("y", "y"),
        ("'no'", "no"),
        ("!!str no", "no"),
        ("!!bool on", True),
        ("0", 0),
        ("0x1f", 31),
        ("0b11", 3),
        ("0o17", "0o17"),
        ("1_000", 1000),
        ("1.5e+3", 1500.0),
        ("-.5", "-.5"),
        ("089", "089"),
        ("0:0", "0:0"),
        ("1.2.3", "1.2.3"),
        ("'0777'", "0777"),
        ("~", None),
        ("", None),
    ],
)
def test_ansibles_reading_is_that_of_its_parser(text, value):
    assert yamlfile.parse(f"a: {text}", ansible=True).data == {"a": value}


@pytest.mark.parametrize(
    ("word", "kind"),
    [
        ("0777", "an octal number"),
        ("!!int 0777", "an octal number"),
        ("1:30", "a number to the base of 60"),
        ("1:30.5", "a number to the base of 60"),
        ("2020-01-01", "a date"),
        ("2020-1-1 10:00:00 +1", "a date"),
        ("1e3", "text, not a number,"),
        ("1.5e3", "text, not a number,"),
        ("!!float 1", "something else"),
        ("!!bool x", "something else"),
    ],
)
def test_what_ansible_takes_for_something_else_is_refused(word, kind):
    with pytest.raises(DocumentError) as error:
        yamlfile.parse(f"a: 1\nb: {word}", "f", ansible=True)
    assert (
        str(error.value)
        == f"f:2: '{word.split(' ', word.count('!!'))[-1]}': Ansible reads {kind} here (put it in quotes)"
    )


_PLAIN_WORDS = st.text("0123456789-+_.:eExobTZ nyfaNYFOltrus~=", max_size=12) | st.sampled_from(
    ["yes", "Off", "null", "TRUE", ".inf", "-.INF", ".nan", "0b10", "0xF_F", "1_0.5e-3", "2001-1-1t1:00:00.5Z"]
)


@given(_PLAIN_WORDS)
@settings(max_examples=500, deadline=None)
def test_plain_words_are_what_they_are_to_pyyaml(word):
    """Or refused; never something else. The oracle is the parser Ansible uses."""
    try:
        mine = yamlfile.parse(f"a: {word}\n", ansible=True).data["a"]
    except DocumentError:
        return
    theirs = yaml.safe_load(f"a: {word}\n")["a"]
    assert repr(mine) == repr(theirs)
