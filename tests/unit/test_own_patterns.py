"""Redaction patterns of one's own: in a file, applied wherever the built-in ones are."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from taskcenter.errors import ValidationFailed
from taskcenter.redaction import (
    MASK,
    Redactor,
    own,
    read_own_patterns,
    redact,
    redact_exception_text,
    redact_text,
    sieve,
)
from taskcenter_console.cli import cli

Use = Callable[..., None]


@pytest.fixture
def use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Use:
    """Have this process mask what the given expressions match; the process forgets them afterwards."""
    monkeypatch.setattr(own, "_current", None)
    monkeypatch.setattr(own, "_is_read", True)
    file = tmp_path / "redaction.txt"

    def use(*expressions: str) -> None:
        file.write_text("# ours\n\n" + "".join(f"{each}\n" for each in expressions))
        read_own_patterns(file)

    return use


@pytest.fixture(params=["engine", "without the engine"])
def road(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param != "engine":
        monkeypatch.setattr(own, "make_scanner", lambda *_: None)


def test_what_matches_is_masked_the_longest_way_it_can(use: Use, road: None) -> None:
    use(r"KD-\d{6,8}", r"(?i)konto\W+\d+", r"^begin .* end$")
    assert redact_text("kunde KD-12345678, Konto: 77.") == f"kunde {MASK}, {MASK}."
    assert redact_text("a\nbegin it end\nbegin at") == f"a\n{MASK}\nbegin at"
    assert redact_text("f\u00fcr \u2028 KD-123456 \u00e4") == f"f\u00fcr \u2028 {MASK} \u00e4"
    assert redact_text("KD-12345 konto") == "KD-12345 konto"


def test_the_other_rules_hold_beside_them(use: Use, road: None) -> None:
    use(r"KD-\d{6}")
    redactor = Redactor(["a-registered-value"])
    assert redactor.redact_text("KD-123456 a-registered-value password: x") == f"{MASK} {MASK} password:{MASK}"


def test_data_and_errors_are_masked_too(use: Use, road: None) -> None:
    use(r"KD-\d{6}", r"\b4\d{15}\b")
    given = {"customer": "KD-123456", "KD-654321": ["x", ("KD-111111",)], "card": 4111111111111111, "n": 7, "t": True}
    expected = {"customer": MASK, MASK: ["x", (MASK,)], "card": MASK, "n": 7, "t": True}
    assert redact(given) == expected
    assert "KD-1" not in redact_exception_text(ValueError("no such customer: KD-123456"))


def test_json_stays_json(use: Use, road: None) -> None:
    use(r"\d{10,}", r'a", "b')
    for text in ('{"n": 12345678901, "m": 3}', '{"n": "12345678901"}', '{"x": "a", "b": 1}', "[12345678901]"):
        found = redact_text(text)
        json.loads(found)
        assert MASK in found
        assert "12345678901" not in found
    lines = redact_text('{"n": 12345678901}\n{"n": 2}\nplain 12345678901').split("\n")
    assert [json.loads(line) for line in lines[:2]] == [{"n": MASK}, {"n": 2}]
    assert lines[2] == f"plain {MASK}"


def test_many_matches_are_masked_one_by_one(use: Use) -> None:
    use(r"ORDER-\d{1,12}")
    text = " ".join(f"ORDER-{number} is paid" for number in range(8_000))
    assert redact_text(text) == " ".join(f"{MASK} is paid" for _ in range(8_000))


def test_expressions_that_kill_other_engines_cost_linear_time(use: Use) -> None:
    use(r"(a+)+\$", r"(x|x|x)*y")
    for text in ("a" * 300_000, "x" * 300_000 + " y"):
        began = time.process_time()
        redact_text(text)
        assert time.process_time() - began < 5  # backtracking would take longer than the sun


@pytest.mark.parametrize("wrong", [r"(?=a)b", r"(a)\1", r"a*", r"(", "\u00e4", "x" * 1001, "#a", "a\nb", " "])
def test_an_expression_that_cannot_be_is_refused_by_its_place(wrong: str) -> None:
    with pytest.raises(ValidationFailed) as caught:
        own.OwnPatterns(["fine", wrong])
    assert [problem.path for problem in caught.value.problems] == ["patterns[1]"]


def test_a_broken_file_stops_who_starts_with_it_and_the_good_ones_count_meanwhile(use: Use) -> None:
    with pytest.raises(ValidationFailed, match=r"redaction.txt has 1 problem"):
        use(r"KD-\d{6}", "(?=a)b")
    assert redact_text("KD-123456") == MASK


@given(
    st.lists(st.sampled_from([r"[A-Z]{4,}", r"\[.", r".\]", r"ED\].", r"x.*y", r"\S+", r"\d"]), min_size=1), st.data()
)
@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_masking_twice_is_masking_once(use: Use, expressions: list[str], data: st.DataObject) -> None:
    use(*expressions)
    pieces = st.sampled_from(
        [MASK, "x", "y", " ", "1", "[", "]", "ABCDE", "password=q1w2e3", '{"a": 1}', '"', "\n", "\u00e4"]
    )
    once = redact_text("".join(data.draw(st.lists(pieces, max_size=12))))
    assert redact_text(once) == once


def test_every_process_of_this_home_reads_them_by_itself(tmp_path: Path) -> None:
    (tmp_path / "redaction.txt").write_text("KD-\\d{6}\n")
    (tmp_path / "other.txt").write_text("XX-\\d{6}\n")
    code = "from taskcenter.redaction import redact_text; print(redact_text('KD-123456 XX-123456'))"
    for named, expected in ((None, f"{MASK} XX-123456"), (tmp_path / "other.txt", f"KD-123456 {MASK}")):
        env = {**os.environ, "TASKCENTER_HOME": str(tmp_path)}
        env.pop("TASKCENTER_REDACTION_PATTERNS", None)
        if named:
            env["TASKCENTER_REDACTION_PATTERNS"] = str(named)
        done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
        assert done.stdout.strip() == expected


def test_the_command_line_adds_lists_tries_and_removes(
    use: Use, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    monkeypatch.setenv("TASKCENTER_HOME", str(home))
    monkeypatch.delenv("TASKCENTER_REDACTION_PATTERNS", raising=False)
    run = CliRunner()

    def call(*words: str) -> tuple[int, str]:
        result = run.invoke(cli, ["redact", *words])
        return result.exit_code, result.output

    assert call("add", r"KD-\d{6}", "-q") == (0, "KD-\\d{6}\n")
    assert (home / "redaction.txt").stat().st_mode & 0o777 == 0o600
    (home / "redaction.txt").write_text("# customers\n" + (home / "redaction.txt").read_text())
    code, said = call("add", "(?=a)b")
    assert code == 2
    assert "patterns[1]: '(?=a)b' cannot be looked for in linear time" in said
    assert call("test", "kunde KD-123456", "-q") == (1, f"kunde {MASK}\n")
    assert call("add", "(?i)konto", "-q") == (0, "KD-\\d{6}\n(?i)konto\n")
    assert json.loads(call("patterns", "--json")[1])["patterns"] == [r"KD-\d{6}", "(?i)konto"]
    assert call("remove", "nothing")[0] == 3
    assert call("remove", r"KD-\d{6}", "-q") == (0, "(?i)konto\n")
    assert (home / "redaction.txt").read_text() == "# customers\n(?i)konto\n"
    assert call("test", "kunde KD-123456", "-q") == (0, "kunde KD-123456\n")


def test_lines_without_a_match_go_the_quick_road(use: Use) -> None:
    use(r"KD-\d{6}")
    assert sieve.warm()
    text = "2026-03-01 12:00:00 INFO copied 12 rows"
    assert redact_text(text) is text
