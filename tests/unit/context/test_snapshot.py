from __future__ import annotations

from detbuild.context.snapshot import ContextSnapshot, Entry, file_snapshot, shown

EMPTY = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def digest(*entries: Entry) -> str:
    return ContextSnapshot(entries).digest


def test_no_name_can_pass_for_two_entries() -> None:
    two = (Entry("a", "file", sha256=EMPTY), Entry("b", "file", sha256=EMPTY))
    one = Entry(f"a\nfile 644 {EMPTY} b", "file", sha256=EMPTY)
    assert digest(*two) != digest(one)


def test_a_blank_moves_no_text_from_a_links_target_to_its_name() -> None:
    assert digest(Entry("c", "link", target="a b")) != digest(Entry("b c", "link", target="a"))


def test_the_source_of_a_file_does_not_show_in_the_digest() -> None:
    assert digest(Entry("a", "file", source="/x/a")) == digest(Entry("a", "file", source="/y/a"))


def test_a_virtual_tree_has_its_directories_in_front_of_its_files() -> None:
    tree = file_snapshot({"b.txt": b"", "a/z": b"", "a.txt": b"", "a/b/c": b"hello"})
    assert [(entry.path, entry.kind, entry.size) for entry in tree.entries] == [
        ("a", "dir", 0),
        ("a/b", "dir", 0),
        ("a/b/c", "file", 5),
        ("a/z", "file", 0),
        ("a.txt", "file", 0),
        ("b.txt", "file", 0),
    ]
    assert (tree.files, tree.size) == (4, 5)
    assert tree.entries[3].sha256 == EMPTY


def test_odd_names_are_shown_on_one_line_of_plain_text() -> None:
    assert shown("a\nb\x1b[31m\udcff é") == "a\\nb\\x1b[31m\\xff é"
