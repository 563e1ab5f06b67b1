# SPDX-License-Identifier: Apache-2.0
"""Forms learned from free answers; test_transformers.py and test_remote.py ask models in them."""

from __future__ import annotations

import logging
import re

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from vlm3_ros.engines.base import Answer
from vlm3_ros.engines.forms import (
    CHECK_EVERY,
    SAMPLES,
    FormError,
    FormLearner,
    follows,
    learn_form,
)
from vlm3_ros.engines.numbers import NUMBER

TEMPLATE = "<think> </think> <answer>{value}</answer>"
DEPTHLM = (
    "<think> The point is around {value} meters away from the camera. </think>\n"
    "<answer> {value} </answer>"
)
METERS = "Translation distance: {value} meters."


def fill(form, *numbers):
    return [form.replace("{value}", number) for number in numbers]


def numbers():
    return st.from_regex(re.compile(NUMBER, re.ASCII), fullmatch=True)


def constants():
    """Text that joins no number next to it."""
    text = st.text(st.characters(exclude_characters="<>", max_codepoint=0x2FF), max_size=12)
    return text.filter(lambda text: not re.search(r"^[.\d]|[.\d]$", text.strip(), re.ASCII))


@pytest.mark.parametrize(
    "form",
    [
        "<think> </think> <answer>{value}</answer>",
        "<think>\n\n</think>\n\n<answer> {value} </answer>",
        "<answer>{value} m</answer>",
        "<think> 2 steps: {value}, so {value}. </think>\nPixel 1 <answer> {value} </answer> (1.5)",
        DEPTHLM,
    ],
)
def test_forms_of_depth(form):
    assert learn_form(TEMPLATE, fill(form, "3.45", "3.46", "12", "0.5")) == form


def test_form_of_the_authors_distance():
    said = fill("Translation distance:\n{value} meters.", "1.98", "0.25")
    assert learn_form(METERS, said) == "Translation distance:\n{value} meters."


@given(
    parts=st.lists(constants(), min_size=1, max_size=4),
    gaps=st.tuples(*[st.sampled_from(["", " ", "\n"])] * 2),
    fixed=numbers(),
    spoken=st.lists(numbers(), min_size=2, max_size=6).filter(lambda drawn: len(set(drawn)) > 1),
)
def test_any_form_is_found_again(parts, gaps, fixed, spoken):
    """Constants, a number that never changes, the answer's number in several places."""
    assume("" not in parts[1:-1])  # "1.5" twice without any text between is another number
    thoughts = "{value}".join(parts)
    form = f"<think>{thoughts}</think> {fixed} <answer>{gaps[0]}{{value}}{gaps[1]}</answer>"
    assert learn_form(TEMPLATE, fill(form, *spoken)) == form
    assert all(follows(form, Answer(text)) for text in fill(form, *spoken))


@given(
    st.permutations([DEPTHLM] * 3 + [DEPTHLM.replace("\n", " "), DEPTHLM.replace("\n", "\n\n")]),
)
def test_most_frequent_white_space_wins(forms):
    said = [form.replace("{value}", str(i)) for i, form in enumerate(forms)]
    assert learn_form(TEMPLATE, said) == DEPTHLM
    assert all(follows(DEPTHLM, Answer(text)) for text in said)


def test_of_equally_frequent_white_space_the_first_wins():
    said = fill("<answer> {value} </answer>", "1", "2") + fill("<answer>{value}</answer>", "3", "4")
    assert learn_form(TEMPLATE, said) == "<answer> {value} </answer>"
    assert learn_form(TEMPLATE, said[::-1]) == "<answer>{value}</answer>"


def test_one_value_does_not_show_where_numbers_stand():
    assert learn_form(TEMPLATE, fill(DEPTHLM, "3.45", "3.45", "3.45", "3.45")) is None


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (["<answer>1.5</answer>", "I see <answer>2.5</answer>"], "words differ"),
        (["<answer>1.5</answer>", "2 or 3, so <answer>2.5</answer>"], "words differ"),
        (
            ["At 7 m <answer>7.1</answer>", "At 8 m <answer>8.2</answer>"],
            "holds 7, which varies and is not the answer 7.1",
        ),
        (["<answer>1.5</answer>", "<answer>-2.5</answer>"], "-2.5 is not written"),
        (["<answer>150 cm</answer>", "<answer>250 cm</answer>"], "no single number"),
        (["<answer>5 ft</answer>", "<answer>6 ft</answer>"], "no single number"),
        (["<answer>12345</answer>"], "12345 is not written"),
        (["<answer>1e2</answer>"], "1e2 is not written"),
        (["<answer>01.5</answer>"], "01.5 is not written"),
        (["<answer>1.5 to 2</answer>"], "no single number"),
        (["<answer>1.5</answer> <answer>2.5</answer>"], "no single number"),
        (["<answer>1.5"], "no single number"),
        (["<think> <answer>1.5</answer> </think> far"], "no single number"),
        (["far away"], "no single number"),
        ([""], "no single number"),
        (["<answer>1.5</answer>" + " " * 100_000], "too long"),
    ],
)
def test_answers_without_a_form(said, reason):
    with pytest.raises(FormError, match=reason):
        learn_form(TEMPLATE, said)


@given(numbers(), numbers())
def test_two_numbers_of_a_form_must_be_equal(first, second):
    text = DEPTHLM.replace("{value}", first, 1).replace("{value}", second)
    assert follows(DEPTHLM, Answer(text)) == (first == second)


@given(st.integers(0, 60), st.integers(0, 9999))
def test_cut_answer_follows_a_form_if_its_number_is_complete(length, number):
    whole = TEMPLATE.replace("{value}", str(number))
    complete = len(f"<think> </think> <answer>{number}")
    assert follows(TEMPLATE, Answer(whole[:length], is_cut=True)) == (complete < length)


class Model:
    """Answers question i of a call with its i-th text."""

    def __init__(self, refusal=lambda form: None, template=TEMPLATE):
        self.learner = FormLearner("the-model", template, refusal)
        self.decoded = 0

    def call(self, said):
        """Ask as engines do; return the indices asked freely, and the form of the others."""
        asked = []
        for indices in self.learner.questions(len(said)):
            answers = [text if isinstance(text, Answer) else Answer(text) for text in said]
            self.learner.observe([answers[i] for i in indices])
            assert not set(asked) & set(indices)
            asked += indices
        return asked, self.learner.form

    def calls_until_asked(self, said, limit=10 * CHECK_EVERY):
        return next(n for n in range(1, limit) if self.call(said)[0])


def said_in(form, count=32):
    return fill(form, *(f"{1 + i / 7:.2f}" for i in range(count)))


@pytest.fixture(autouse=True)
def log(caplog):
    caplog.set_level(logging.INFO)
    return caplog


def test_one_free_answer_suffices_for_the_template(log):
    model = Model()
    assert model.call(said_in(TEMPLATE)) == ([0], TEMPLATE)
    assert model.call(said_in(TEMPLATE)) == ([], TEMPLATE)
    assert not log.records


def test_another_form_is_learned_in_the_first_call(log):
    model = Model()
    assert model.call(said_in(DEPTHLM)) == ([0, 1, 11, 21], DEPTHLM)
    (record,) = log.records
    assert record.levelname == "INFO"
    assert record.message == (
        "the-model answers '<think> The point is around {value} meters away from the camera. "
        "</think>\\n<answer> {value} </answer>': numbers are forced into this form"
    )


def test_template_with_two_numbers():
    assert Model(template=DEPTHLM).call(said_in(DEPTHLM)) == ([0], DEPTHLM)


def test_samples_are_kept_over_calls():
    model = Model()
    calls = [model.call([text]) for text in said_in(DEPTHLM, SAMPLES)]
    assert calls == [([0], None)] * (SAMPLES - 1) + [([0], DEPTHLM)]


def test_as_many_answers_as_it_takes_to_see_two_values():
    flat = fill(DEPTHLM, *["2.50"] * 31, "2.51")
    model = Model()
    asked, form = model.call(flat)
    assert form == DEPTHLM
    assert sorted(asked) == list(range(32))
    flatter = Model()
    assert [flatter.call(flat[:1]) for _ in range(9)] == [([0], None)] * 9
    assert flatter.call(flat[-1:]) == ([0], DEPTHLM)


def test_a_model_that_always_says_the_same_costs_no_more_in_each_call(monkeypatch):
    texts = []

    def counted(template, samples):
        texts.append(len(samples))
        return learn_form(template, samples)

    monkeypatch.setattr("vlm3_ros.engines.forms.learn_form", counted)
    model = Model()
    for _ in range(20):
        assert model.call(fill(DEPTHLM, *["2.50"] * 32))[1] is None
    assert max(texts) <= SAMPLES
    assert model.call(said_in(DEPTHLM))[1] == DEPTHLM


def test_checks_are_frequent_at_first_and_spread_over_questions():
    model = Model()
    model.call(said_in(DEPTHLM))
    waits = [model.calls_until_asked(said_in(DEPTHLM)) for _ in range(9)]
    assert waits == [1, 2, 4, 8, 16, 32, CHECK_EVERY, CHECK_EVERY, CHECK_EVERY]
    checked = set()
    while len(checked) < 16:
        asked, _ = model.call(said_in(DEPTHLM))
        checked.update(asked)
    assert max(checked) - min(checked) > 16


def test_template_is_checked_now_and_then():
    model = Model()
    model.call(said_in(TEMPLATE))
    waits = [model.calls_until_asked(said_in(TEMPLATE)) for _ in range(3)]
    assert waits == [CHECK_EVERY] * 3


def test_white_space_is_no_other_form(log):
    model = Model()
    model.call(said_in(DEPTHLM))
    for _ in range(3):
        model.calls_until_asked(said_in(DEPTHLM.replace("\n", "\n\n")))
    assert model.learner.form == DEPTHLM
    assert len(log.records) == 1


def test_model_that_speaks_otherwise_is_learned_anew_in_the_same_call(log):
    model = Model()
    model.call(said_in(TEMPLATE))
    while not (call := model.call(said_in(DEPTHLM)))[0]:
        assert call[1] == TEMPLATE
    asked, form = call
    assert form == DEPTHLM
    assert len(asked) == 1 + SAMPLES
    model.calls_until_asked(said_in(TEMPLATE))
    assert model.learner.form == TEMPLATE
    assert [record.levelname for record in log.records] == ["INFO", "INFO"]
    assert repr(TEMPLATE) in log.messages[1]


def test_one_odd_answer_does_not_end_forcing():
    """At first, and in a check."""
    model = Model()
    said = ["I cannot tell.", *said_in(DEPTHLM, 31)]
    assert model.call(said) == ([0], None)
    assert model.call(said[1:])[1] == DEPTHLM
    for _ in range(3):
        odd = said_in(DEPTHLM)
        model.learner._calls_left = 0
        (first, *_) = model.learner.questions(32)
        odd[first[0]] = "I cannot tell."
        model.learner._calls_left = 0
        model.learner._checks -= 1
        asked, form = model.call(odd)
        assert form == DEPTHLM
        assert len(asked) == 1 + SAMPLES


def test_unlearnable_answers_are_tried_again_now_and_then(log):
    model = Model()
    said = [f"{i} steps <answer>{i}.5</answer>" for i in range(32)]
    assert model.call(said) == ([0, 1, 11, 21], None)
    waits = [model.calls_until_asked(said) for _ in range(8)]
    assert waits == [1, 2, 4, 8, 16, 32, CHECK_EVERY, CHECK_EVERY]
    (record,) = log.records
    assert record.levelname == "WARNING"
    assert "the-model answers '21 steps <answer>21.5</answer>'" in record.message
    assert "it holds 0, which varies and is not the answer 0.5" in record.message
    model.calls_until_asked(said_in(DEPTHLM))
    assert model.learner.form == DEPTHLM
    assert len(log.records) == 2


def test_cut_answers_are_not_learned(log):
    model = Model()
    cut = [Answer(text[:-3], is_cut=True) for text in said_in(DEPTHLM)]
    assert model.call(cut) == ([0], None)
    assert "max_new_tokens cut it off" in log.text
    cut = [Answer(text[:-3], is_cut=True) for text in said_in(TEMPLATE)]
    assert model.call(cut) == ([0], TEMPLATE)


def test_refused_form_is_free_text(log):
    model = Model(lambda form: "the tokenizer joins its numbers")
    assert model.call(said_in(TEMPLATE)) == ([0], None)
    assert "(the tokenizer joins its numbers)" in log.text


def test_faults_teach_nothing():
    model = Model()
    assert model.call([Answer("", fault="timeout")] * 3)[1] is None
    passes = list(model.learner.questions(32))
    assert [len(indices) for indices in passes] == [1, 4, 5, 10, 12], "not one after another"
    assert model.call(said_in(DEPTHLM))[1] == DEPTHLM
    asked, form = model.call([Answer("", fault="timeout")] * 3)
    assert len(asked) == 1
    assert form == DEPTHLM
    assert len(model.call(said_in(DEPTHLM))[0]) == 1, "the check is made up for"


@given(st.data())
def test_no_call_asks_twice_or_forces_what_was_not_spoken(data):
    """Whatever models say, a form is one of the free answers of the same model."""
    forms = [TEMPLATE, DEPTHLM, DEPTHLM.replace("\n", " "), "I see {value} m", "far"]
    model = Model()
    spoken = set()
    for _ in range(data.draw(st.integers(1, 6))):
        texts = data.draw(
            st.lists(st.tuples(st.sampled_from(forms), numbers()), min_size=1, max_size=9)
        )
        model.learner._calls_left = data.draw(st.integers(0, 2))
        asked, form = model.call([form.replace("{value}", n) for form, n in texts])
        spoken |= {texts[i][0] for i in asked}
        assert form is None or form in spoken


@given(numbers())
def test_number_of_another_grammar_breaks_a_form(number):
    assume(number != "0")
    assert not follows(TEMPLATE, Answer(TEMPLATE.replace("{value}", "0" + number)))
