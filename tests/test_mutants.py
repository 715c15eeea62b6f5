"""The script that counts killed mutants: what is a mutant, which are drawn, and what is said of them."""

from __future__ import annotations

import dataclasses

from mutants import Mutant, Tried, changed_lines, program, report, sample

SOURCE = """def half(x: int | None, *, by: int = 2) -> float:
    y: float = x / by
    return y
"""


def mutant(number: int, path: str = "a.py") -> Mutant:
    return Mutant(path, number, f"x = {number}", f"x = {number + 1}", "core/NumberReplacer", number)


def test_annotations_are_no_part_of_a_program_and_defaults_are() -> None:
    for text, other in (("int | None", "int + None"), ("-> float", "-> int"), ("y: float", "y: 3")):
        assert program(SOURCE.replace(text, other)) == program(SOURCE)
    for text, other in (("= 2", "= 3"), ("x / by", "x * by"), ("*, by", "by")):
        assert program(SOURCE.replace(text, other)) != program(SOURCE)


def test_a_change_is_told_by_its_lines() -> None:
    changed = SOURCE.replace("x / by", "x * by")
    assert changed_lines(SOURCE, changed) == (2, "    y: float = x / by", "    y: float = x * by")
    assert changed_lines("@a\ndef f(): ...\n", "def f(): ...\n") == (1, "@a", "")


def test_the_sample_is_fixed_and_other_changes_of_the_source_hardly_touch_it() -> None:
    everything = [mutant(number) for number in range(500)]
    drawn = sample(everything, 50, seed=1)
    assert len({one.line for one in drawn}) == 50
    assert sample(everything[::-1], 50, seed=1) == drawn
    assert sample(everything, 50, seed=2) != drawn
    moved = [dataclasses.replace(one, line=one.line + 9) for one in everything]
    assert [one.before for one in sample(moved, 50, seed=1)] == [one.before for one in drawn]
    more = [*everything, *(mutant(number, "b.py") for number in range(5))]
    assert len(set(sample(more, 50, seed=1)) & set(drawn)) >= 45


def test_a_time_limit_kills_and_what_nothing_can_notice_stays_in_the_denominator() -> None:
    outcomes = ("killed", "timeout", "survived", "survived")
    tried = [Tried(mutant(number), outcome) for number, outcome in enumerate(outcomes)]
    judged = [{"path": "a.py", "before": " x = 2", "after": "x = 3 ", "reason": "x is not read."}]
    text = report(tried, judged, seed=7, size=900, seconds=12.3, versions="Cosmic Ray 8")
    for said in (
        "| mutants tested | 4 of 900, drawn with seed 7 |",
        "| killed | 2: **50.0 % [6.8, 93.2]** |",  # Clopper and Pearson, 2 of 4
        "| of these by the time limit | 1 |",
        "| versions | Cosmic Ray 8 |",
        "| survived | 2, of which 1 change nothing",
        "| `a.py` | 4 | 2 |",
        "-x = 2\n+x = 3\n```\n\nEquivalent: x is not read.",
        "-x = 3\n+x = 4\n```\n\n**No test notices it.**",
    ):
        assert said in text
    assert "x = 1" not in text
    assert "None." in report(tried[:1], judged, seed=7, size=900, seconds=1, versions="")
