"""Asking, asking again, editing, going on: what the tree is afterwards, and what the model was shown."""

from __future__ import annotations

import asyncio
import itertools
from dataclasses import replace

import pytest
from fastapi import FastAPI

from fireside.engine.client import EngineBusy
from fireside.engine.messages import GenerationRequest
from fireside.engine.scripted import ScriptedAnswer
from fireside.server.chat.runs.live import LiveRun
from fireside.server.chat.runs.plan import Plan
from fireside.server.chat.runs.titles import clean_title
from fireside.server.chat.schemas import Parameters
from fireside.server.db.base import new_id
from tests.server.accounts.people import context_of
from tests.server.chat.people import Person, said
from tests.server.scripted_app import Scripted, byte_tokenizer, says, scripted_app, scripted_model

ENDLESS = ScriptedAnswer(token_ids=itertools.repeat(ord("x")), delay=0.005)


@pytest.fixture
def app(script: Scripted) -> FastAPI:
    """On SQLite alone: what is special about a database is in the other files."""
    return scripted_app(script)


def prompts(script: Scripted) -> list[str]:
    """Of the answers: those that ask for a title are left out."""
    texts = [script.prompt(index) for index in range(len(script.client.requests))]
    return [text for text in texts if "Write a short title" not in text]


async def test_a_question_and_its_answer(ada: Person, script: Scripted) -> None:
    script.answer = says("Hello there.")
    conversation = await ada.converse()
    started = await ada.ask(conversation, "Good\n morning")
    question, answer, run = started["message"], started["answer"], started["run"]
    assert (question["role"], question["status"], question["parent_id"]) == ("user", "complete", None)
    assert (answer["role"], answer["status"], answer["parent_id"]) == ("assistant", "running", question["id"])
    assert (run["status"], run["message_id"], answer["run_id"]) == ("running", answer["id"], run["id"])
    events = await ada.events(run["id"])
    assert [number for number, _ in events] == list(range(1, len(events) + 1))
    assert said(events) == "Hello there."
    done = {"type": "done", "status": "complete", "finish_reason": "stop", "error": None, "is_pruned": False}
    assert events[-1][1] == done
    usage = next(event for _, event in events if event["type"] == "usage")
    assert (usage["completion_tokens"], usage["prompt_tokens"]) == (
        13,
        len(prompts(script)[0].replace("<|im_start|>", "s").replace("<|im_end|>", "e")),
    )
    tree = await ada.get(f"conversations/{conversation}")
    assert [m["id"] for m in tree["messages"]] == [question["id"], answer["id"]]
    written = tree["messages"][1]
    assert (written["content"], written["status"], written["model"]) == ("Hello there.", "complete", "tiny")
    assert tree["current_leaf_id"] == answer["id"]
    assert (await ada.get(f"runs/{run['id']}"))["status"] == "complete"
    assert script.client.requests[0].sampling.temperature == 0.7
    assert prompts(script) == ["<|im_start|>user\nGood\n morning<|im_end|>\n<|im_start|>assistant\n"]


async def test_the_branch_is_the_prompt(ada: Person, script: Scripted) -> None:
    script.answer = says("A")
    conversation = await ada.converse()
    _, first = await ada.asked(conversation, "1")
    await ada.asked(conversation, "2, on another branch", first["id"])
    await ada.asked(conversation, "3", first["id"])
    assert prompts(script)[-1] == (
        "<|im_start|>user\n1<|im_end|>\n<|im_start|>assistant\nA<|im_end|>\n"
        "<|im_start|>user\n3<|im_end|>\n<|im_start|>assistant\n"
    )


async def test_regenerating_makes_a_sibling(ada: Person, script: Scripted) -> None:
    script.answer = says("One.")
    conversation = await ada.converse()
    question, first = await ada.asked(conversation, "Say a number")
    script.answer = says("Two.")
    again = await ada.post(f"messages/{first['id']}/regenerate", {"parameters": {"temperature": 0.5, "seed": 7}})
    assert again["message"] is None and again["answer"]["parent_id"] == question["id"]
    await ada.events(again["run"]["id"])
    tree = await ada.get(f"conversations/{conversation}")
    assert [m["content"] for m in tree["messages"]] == ["Say a number", "One.", "Two."]
    assert tree["current_leaf_id"] == again["answer"]["id"]
    assert tree["messages"][2]["parameters"] == {"temperature": 0.5, "seed": 7}
    assert (script.client.requests[-1].sampling.temperature, script.client.requests[-1].sampling.seed) == (0.5, 7)
    assert (await ada.post(f"messages/{question['id']}/regenerate", status=400))["error"]["code"] == "wrong_role"


async def test_what_is_given_again_is_drawn_where_nobody_said_how(ada: Person, app: FastAPI, script: Scripted) -> None:
    """The default model's authors want the likeliest words, which are the same each time."""
    model = app.state.context.models.default
    model.defaults = replace(model.defaults, temperature=0.0)
    conversation = await ada.converse()
    _, first = await ada.asked(conversation, "Say a number")
    assert first["parameters"]["temperature"] == 0
    again = await ada.post(f"messages/{first['id']}/regenerate")
    await ada.events(again["run"]["id"])
    assert again["answer"]["parameters"]["temperature"] == 0.7
    assert script.client.requests[-1].sampling.temperature == 0.7
    for chosen in ({"temperature": 0.0}, {"seed": 1}):
        again = await ada.post(f"messages/{first['id']}/regenerate", {"parameters": chosen})
        assert again["answer"]["parameters"] == {"temperature": 0.0} | chosen


async def test_editing_a_question(ada: Person, script: Scripted) -> None:
    conversation = await ada.converse()
    question, _ = await ada.asked(conversation, "teh question")
    edited = await ada.post(f"messages/{question['id']}/edit", {"content": "the question"})
    await ada.events(edited["run"]["id"])
    assert edited["message"]["parent_id"] is None and edited["answer"]["parent_id"] == edited["message"]["id"]
    assert "the question" in prompts(script)[-1] and "teh" not in prompts(script)[-1]
    silent = await ada.post(f"messages/{question['id']}/edit", {"content": "a note", "run": False})
    assert silent["run"] is None and silent["answer"] is None
    tree = await ada.get(f"conversations/{conversation}")
    assert len(tree["messages"]) == 5 and tree["current_leaf_id"] == silent["message"]["id"]


async def test_editing_an_answer(ada: Person, script: Scripted) -> None:
    conversation = await ada.converse()
    question, answer = await ada.asked(conversation, "Hi")
    edited = await ada.post(f"messages/{answer['id']}/edit", {"content": "As I would say it."})
    assert edited["run"] is None
    assert (edited["message"]["role"], edited["message"]["parent_id"]) == ("assistant", question["id"])
    await ada.asked(conversation, "Go on", edited["message"]["id"])
    assert "As I would say it." in prompts(script)[-1] and "Hello there." not in prompts(script)[-1]


async def test_a_cut_answer_goes_on_in_the_same_message(ada: Person, script: Scripted) -> None:
    script.answer = says("Once upon a time")
    conversation = await ada.converse()
    _, cut = await ada.asked(conversation, "A story", parameters={"max_tokens": 5})
    assert (cut["content"], cut["status"], cut["finish_reason"]) == ("Once ", "complete", "length")
    script.answer = says("upon a time")
    more = await ada.post(f"messages/{cut['id']}/continue", {"parameters": {"max_tokens": 100}})
    assert (more["answer"]["id"], more["answer"]["status"], more["answer"]["content"]) == (
        cut["id"],
        "running",
        "Once ",
    )
    assert said(await ada.events(more["run"]["id"])) == "upon a time"
    whole = await ada.message(conversation, cut["id"])
    assert (whole["content"], whole["finish_reason"]) == ("Once upon a time", "stop")
    assert prompts(script)[-1].endswith("<|im_start|>assistant\nOnce ")


async def test_two_tabs_go_on_with_it_once(ada: Person, script: Scripted) -> None:
    script.answer = says("Once")
    conversation = await ada.converse(title="t")
    _, cut = await ada.asked(conversation, "A story")
    script.answer = says(" more", delay=0.01)
    path = f"/api/messages/{cut['id']}/continue"
    both = await asyncio.gather(*(ada.http.post(path, json={}) for _ in range(4)))
    assert sorted(answer.status_code for answer in both) == [201, 409, 409, 409]
    run = next(answer.json()["run"]["id"] for answer in both if answer.status_code == 201)
    await ada.events(run)
    assert (await ada.message(conversation, cut["id"]))["content"] == "Once more"


async def test_stopping_keeps_what_was_said_and_frees_the_engine(ada: Person, script: Scripted) -> None:
    script.answer = lambda request: says("Title") if _wants_title(request) else ENDLESS
    conversation = await ada.converse()
    started = await ada.ask(conversation, "Hi")
    message, run = started["answer"]["id"], started["run"]["id"]
    for path in ("continue", "regenerate"):
        if path == "continue":
            assert (await ada.post(f"messages/{message}/{path}", status=409))["error"]["code"] == "still_running"
    refused = await ada.post(f"conversations/{conversation}/messages", {"content": "?", "parent_id": message}, 409)
    assert refused["error"]["code"] == "still_running"
    await asyncio.sleep(0.1)
    stopped = await ada.post(f"runs/{run}/stop", status=200)
    assert stopped["status"] == "stopped" and script.client.in_flight == 0
    written = await ada.message(conversation, message)
    assert written["status"] == "stopped" and set(written["content"]) == {"x"}
    events = await ada.events(run)
    assert said(events) == written["content"] and events[-1][1]["status"] == "stopped"
    assert (await ada.post(f"runs/{run}/stop", status=200))["status"] == "stopped"
    script.answer = says("y")
    more = await ada.post(f"messages/{message}/continue")
    await ada.events(more["run"]["id"])
    assert (await ada.message(conversation, message))["content"] == written["content"] + "y"


async def test_stopping_before_the_first_step(ada: Person, script: Scripted) -> None:
    script.answer = ENDLESS
    conversation = await ada.converse()
    started = await ada.ask(conversation, "Hi")
    assert (await ada.post(f"runs/{started['run']['id']}/stop", status=200))["status"] == "stopped"


async def test_an_error_is_a_message_that_can_be_tried_again(ada: Person, script: Scripted) -> None:
    script.answer = lambda request: says("Hello", crash_after=2)
    conversation = await ada.converse()
    _, failed = await ada.asked(conversation, "Hi")
    assert (failed["status"], failed["content"], failed["error"]["code"]) == ("failed", "He", "engine_unavailable")
    await script.client.start()
    script.answer = ScriptedAnswer(error=EngineBusy("the queue is full; try again shortly"))
    again = await ada.post(f"messages/{failed['id']}/regenerate")
    await ada.events(again["run"]["id"])
    refused = await ada.message(conversation, again["answer"]["id"])
    assert (refused["status"], refused["error"]["code"]) == ("failed", "queue_full")
    # An answer without a word is no turn: two questions in a row become one.
    script.answer = says("At last")
    await ada.asked(conversation, "Hello?", refused["id"])
    assert prompts(script)[-1] == "<|im_start|>user\nHi\n\nHello?<|im_end|>\n<|im_start|>assistant\n"


async def test_who_sees_less_than_there_is_asks_nothing_by_mistake(ada: Person) -> None:
    conversation = await ada.converse()
    question, answer = await ada.asked(conversation, "Hi", is_end=True)
    ids = {"id": new_id()}
    await ada.asked(conversation, "In another tab", answer["id"], is_end=True, **ids)
    for parent in (None, answer["id"]):
        body = {"content": "And here", "parent_id": parent, "is_end": True}
        refused = await ada.post(f"conversations/{conversation}/messages", body, status=409)
        assert refused["error"]["code"] == "gone_on"
    again = await ada.ask(conversation, "In another tab", answer["id"], is_end=True, **ids)  # by who was not answered
    assert again["message"]["id"] == ids["id"]
    sibling = await ada.ask(conversation, "On purpose", answer["id"])
    assert sibling["message"]["parent_id"] == answer["id"] and question["parent_id"] is None
    assert len((await ada.get(f"conversations/{conversation}"))["messages"]) == 6


async def test_a_request_that_is_sent_twice_is_carried_out_once(ada: Person, script: Scripted) -> None:
    conversation = await ada.converse()
    ids = {"id": new_id()}
    both = await asyncio.gather(*(ada.ask(conversation, "Hi", **ids) for _ in range(5)))
    assert len({started["run"]["id"] for started in both}) == 1
    await ada.events(both[0]["run"]["id"])
    later = await ada.ask(conversation, "Hi", **ids)
    assert later["answer"]["content"] == "Hello there."
    assert len((await ada.get(f"conversations/{conversation}"))["messages"]) == 2
    other = await ada.converse()
    refused = await ada.post(f"conversations/{other}/messages", {"content": "Hi", **ids}, 409)
    assert refused["error"]["code"] == "id_taken"


async def test_what_cannot_be_asked(ada: Person) -> None:
    conversation = await ada.converse()
    question, _ = await ada.asked(conversation, "Hi")
    path = f"conversations/{conversation}/messages"
    bad = await ada.post(path, {"content": "?", "parent_id": question["id"]}, 400)
    assert bad["error"]["param"] == "parent_id"
    await ada.post(path, {"content": "?", "parent_id": new_id()}, 404)
    await ada.post(path, {"content": "?", "model": "unknown"}, 404)
    await ada.post(path, {"content": ""}, 400)
    await ada.post(path, {"content": "a\0b"}, 400)
    await ada.post(path, {"content": "?", "parent_id": "' OR 1=1"}, 400)


async def test_only_so_many_runs_at_once(ada: Person, script: Scripted, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fireside.server.chat.runs.hub.MAX_RUNS_EACH", 2)
    script.answer = ENDLESS
    conversations = [await ada.converse() for _ in range(3)]
    runs = [(await ada.ask(conversation, "Hi"))["run"]["id"] for conversation in conversations[:2]]
    refused = await ada.post(f"conversations/{conversations[2]}/messages", {"content": "Hi"}, 429)
    assert refused["error"]["code"] == "too_many_runs"
    await ada.post(f"runs/{runs[0]}/stop", status=200)
    await ada.ask(conversations[2], "Hi")


async def test_system_prompt_of_conversation_project_and_person(ada: Person, bob: Person, script: Scripted) -> None:
    project = (await ada.post("projects", {"name": "Cooking", "instructions": "Use grams."}))["id"]
    conversation = await ada.converse(project_id=project, parameters={"system": "Be brief.", "max_tokens": 3})
    await ada.asked(conversation, "Hi")
    assert prompts(script)[-1].startswith("<|im_start|>system\nBe brief.\n\nUse grams.<|im_end|>\n")
    await ada.asked(conversation, "Hi", parameters={"system": "Be verbose."})
    assert prompts(script)[-1].startswith("<|im_start|>system\nBe verbose.\n\nUse grams.<|im_end|>\n")
    assert script.client.requests[-1].sampling.max_tokens == 3


async def test_the_oldest_turns_are_left_out_when_the_context_is_full(ada: Person, script: Scripted) -> None:
    script.answer = says("A" * 100)
    conversation = await ada.converse(parameters={"system": "Be brief.", "max_tokens": 100})
    parent, left_out = None, []
    for number in range(14):
        started = await ada.ask(conversation, f"Question {number}: " + "q" * 100, parent)
        events = await ada.events(started["run"]["id"])
        assert events[-1][1]["status"] == "complete"
        left_out.append(next((event["left_out"] for _, event in events if event["type"] == "context"), 0))
        parent = started["answer"]["id"]
        prompt = prompts(script)[-1]
        assert prompt.startswith("<|im_start|>system\nBe brief.") and f"Question {number}:" in prompt
        assert (f"Question {left_out[-1] // 2}:" in prompt) and (f"Question {left_out[-1] // 2 - 1}:" not in prompt)
    # Several at once, so that the prompt's beginning stays the same for some turns.
    assert left_out[0] == 0 and sorted(left_out) == left_out and set(left_out) == {0, 8, 16}
    assert len(byte_tokenizer().encode(prompts(script)[-1], allow_special=True)) + 100 <= 2048


async def test_a_question_that_never_fits(ada: Person) -> None:
    conversation = await ada.converse()
    _, answer = await ada.asked(conversation, "q" * 3000)
    assert (answer["status"], answer["error"]["code"]) == ("failed", "context_length_exceeded")


def _wants_title(request: GenerationRequest) -> bool:
    return "Write a short title" in byte_tokenizer().decode(request.prompt_ids)


async def test_titles(ada: Person, script: Scripted) -> None:
    script.answer = lambda request: says(
        '"Title: A Bright Morning."\nand more' if _wants_title(request) else "Yes.", delay=0.001
    )
    conversation = await ada.converse()
    started = await ada.ask(conversation, "Is this\na bright morning?")
    assert (await ada.get(f"conversations/{conversation}"))["title"] == "Is this a bright morning?"
    await ada.events(started["run"]["id"])
    await _until_title(ada, conversation, "A Bright Morning")
    # Only the first question names a conversation, and never one that a person has named.
    await ada.asked(conversation, "And now?", started["answer"]["id"])
    named = await ada.converse(title="Mine")
    await ada.asked(named, "Hi")
    assert (await ada.get(f"conversations/{named}"))["title"] == "Mine"
    assert sum("Write a short title" in script.prompt(i) for i in range(len(script.client.requests))) == 1


async def test_a_person_names_it_while_the_model_thinks_of_a_name(ada: Person, script: Scripted) -> None:
    script.answer = lambda request: says("Theirs", delay=0.02) if _wants_title(request) else says("Hi")
    conversation = await ada.converse()
    await ada.asked(conversation, "Hi")
    await ada.patch(f"conversations/{conversation}", {"title": "Mine"})
    while script.client.in_flight:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.05)
    assert (await ada.get(f"conversations/{conversation}"))["title"] == "Mine"


@pytest.mark.parametrize(
    ("said", "title"),
    [
        ("The Candle, and How It Burns, in Great Detail", "The Candle, and How It Burns"),
        ("One two three four five six, seven", "One two three four five six"),
        ("x" * 70 + " " + "y" * 70, "x" * 70),
        ("z" * 200, "z" * 80),
    ],
)
def test_a_title_is_at_most_six_words(said: str, title: str) -> None:
    assert clean_title(said) == title


async def test_a_title_comes_with_the_stream(ada: Person, script: Scripted) -> None:
    script.answer = lambda request: says("Sun") if _wants_title(request) else says("x" * 40, delay=0.005)
    conversation = await ada.converse()
    started = await ada.ask(conversation, "Hi")
    events = await ada.events(started["run"]["id"])
    assert [event["title"] for _, event in events if event["type"] == "title"] == ["Sun"]


async def _until_title(ada: Person, conversation: str, title: str) -> None:
    for _ in range(100):
        if (await ada.get(f"conversations/{conversation}"))["title"] == title:
            return
        await asyncio.sleep(0.02)
    raise AssertionError(await ada.get(f"conversations/{conversation}"))


async def test_a_title_s_model_may_be_unloaded_before_it_writes(app: FastAPI, script: Scripted) -> None:
    model = scripted_model("gone", script.client)
    await script.client.close()
    plan = Plan(run_id="r", user_id="u", model=model, turns=[], parameters=Parameters())
    run = LiveRun(id="r", user_id="u", model="gone")
    await context_of(app).runs._write_title(run, plan, "Hi")  # and the conversation keeps its first words
