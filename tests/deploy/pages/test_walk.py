"""A walk fails where a page and what is done with it part."""

from __future__ import annotations

from pathlib import Path

import pytest
from walk import Walk, blocks, not_in

PAGE = """\
# A page

    echo first
    cat > file <<EOF
    a: 1
    EOF

says

    first …
    …
    done (decision 01KAMZ6W4Y3V0M1T5C1Q0C2H8R)

1. Then

   ```yaml
   b: 2
   ```

## Another section

    false
"""


@pytest.fixture
def page(tmp_path: Path) -> Path:
    path = tmp_path / "page.md"
    path.write_text(PAGE)
    return path


def test_commands_files_and_outputs_come_in_the_order_of_the_page(page: Path, tmp_path: Path) -> None:
    walk = Walk(page, tmp_path / "empty")
    assert walk.run("echo") == "first\n"
    walk.run("cat")
    assert (tmp_path / "empty/file").read_text() == "a: 1\n"
    walk.said = "first one\nand more\n  done   (decision 01AAAAAAAAAAAAAAAAAAAAAAAA)\n"
    walk.shown("first")
    walk.write("b:", "other")
    assert (tmp_path / "empty/other").read_text() == "b: 2\n"
    walk.run("false", code=1)
    walk.end()


def test_a_section_ends_where_the_next_one_begins(page: Path) -> None:
    assert [block.text for block in blocks(page, "Another section")] == ["false"]


def test_an_unknown_command_fails_and_names_its_line(page: Path, tmp_path: Path) -> None:
    walk = Walk(page, tmp_path / "empty")
    with pytest.raises(AssertionError, match=r"page\.md:3 has `echo first` where `ls"):
        walk.run("ls")


def test_what_is_left_over_fails(page: Path, tmp_path: Path) -> None:
    walk = Walk(page, tmp_path / "empty")
    walk.run("echo")
    with pytest.raises(AssertionError, match="nothing here deals with `cat > file"):
        walk.end()
    with pytest.raises(AssertionError, match="nothing here deals with `cat > file"):
        walk.shown("first")


def test_a_command_that_fails_and_an_output_that_differs_fail(page: Path, tmp_path: Path) -> None:
    walk = Walk(page, tmp_path / "empty", section="Another section")
    with pytest.raises(AssertionError, match="`false` ended with 1"):
        walk.run("false")
    assert not_in("first\nsecond", "second\nfirst\n") == "second"
    assert not_in("a (01…)", "a (01K)") == "a (01…)"


def test_nothing_is_passed_by_without_a_reason(page: Path, tmp_path: Path) -> None:
    walk = Walk(page, tmp_path / "empty")
    with pytest.raises(ValueError, match="needs a reason"):
        walk.not_run("echo", because="")
    with pytest.raises(ValueError, match="needs a reason"):
        walk.run("echo", instead="true")
