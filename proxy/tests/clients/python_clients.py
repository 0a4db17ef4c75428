"""The Python side of the table: the official clients and LangChain's, each asked in one way and told of in one way.

`opened` gives every client as a function from what to ask to what it got; the JavaScript ones are the same in `js/`.
"""

import json

import langchain_anthropic
import langchain_ollama
import langchain_openai
from langchain_core.messages import HumanMessage, ToolMessage

import anthropic
import ollama
import openai

NAME = "weather"
DESCRIPTION = "The weather of a city"
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"], "additionalProperties": False}
FUNCTION = {"type": "function", "function": {"name": NAME, "description": DESCRIPTION, "parameters": SCHEMA}}


class Tool:
    """The one tool of the table. Remembers what it was called with."""

    def __init__(self):
        self.calls = []

    def run(self, given):
        self.calls.append([NAME, given])
        return "{}: sunny, 21 degrees".format(given["city"])


def opened(url, key):
    """The clients by name."""
    oai = openai.OpenAI(base_url=url + "/v1", api_key=key, max_retries=0, timeout=20)
    claude = anthropic.Anthropic(base_url=url, api_key=key, max_retries=0, timeout=20)
    llama = ollama.Client(host=url, headers={"Authorization": "Bearer " + key}, timeout=20)
    return {
        "openai chat": lambda asked: chat(oai, **asked),
        "openai responses": lambda asked: responses(oai, **asked),
        "anthropic messages": lambda asked: messages(claude, **asked),
        "ollama chat": lambda asked: ollama_chat(llama, **asked),
        "langchain-openai chat": lambda asked: langchain(openai_chat(url, key, **asked), **asked),
        "langchain-openai responses": lambda asked: langchain(openai_chat(url, key, responses=True, **asked), **asked),
        "langchain-anthropic": lambda asked: langchain(anthropic_chat(url, key, **asked), **asked),
        "langchain-ollama": lambda asked: langchain(langchain_ollama.ChatOllama(model=asked["model"], base_url=url, reasoning=asked["thinking"], client_kwargs={"headers": {"Authorization": "Bearer " + key}, "timeout": 20}), **asked),
    }


def run(client, asked):
    """What the client got, or what it threw."""
    tool = Tool() if asked["tool"] else None
    try:
        got = client({**{name: value for name, value in asked.items() if name != "name"}, "tool": tool})
    except Exception as error:
        got = {"error": type(error).__name__, "status": getattr(error, "status_code", None), "message": str(error)}
    return {**got, "calls": tool.calls if tool else []}


def chat(client, model, prompt, stream, tool, thinking):
    said = [{"role": "user", "content": prompt}]
    while True:
        fields = {"model": model, "messages": said, **({"tools": [FUNCTION]} if tool else {}), **({"reasoning_effort": "low"} if thinking else {})}
        got = {"pieces": 0}
        if stream:
            with client.chat.completions.stream(**fields) as events:
                thought = []
                for event in events:
                    got["pieces"] += event.type == "content.delta"
                    if event.type == "chunk":
                        thought += [getattr(choice.delta, "reasoning_content", None) or "" for choice in event.chunk.choices]
                message = events.get_final_completion().choices[0].message
            got["thinking"] = "".join(thought)
        else:
            message = client.chat.completions.create(**fields).choices[0].message
            got["thinking"] = getattr(message, "reasoning_content", None) or ""
        if not message.tool_calls:
            return {**got, "text": message.content}
        said.append(message.to_dict())
        said += [{"role": "tool", "tool_call_id": call.id, "content": tool.run(json.loads(call.function.arguments))} for call in message.tool_calls]


def replied(api, stream, fields, delta, final):
    """The reply, and in how many pieces its text came."""
    if not stream:
        return api.create(**fields), 0
    with api.stream(**fields) as events:
        pieces = sum(event.type == delta for event in events)
        return getattr(events, final)(), pieces


def responses(client, model, prompt, stream, tool, thinking):
    given = [{"role": "user", "content": prompt}]
    while True:
        fields = {"model": model, "input": given, "store": False, **({"tools": [{"type": "function", "name": NAME, "description": DESCRIPTION, "parameters": SCHEMA, "strict": True}]} if tool else {})}
        fields.update({"reasoning": {"effort": "low", "summary": "auto"}} if thinking else {})
        reply, pieces = replied(client.responses, stream, fields, "response.output_text.delta", "get_final_response")
        calls = [item for item in reply.output if item.type == "function_call"]
        if not calls:
            return {"pieces": pieces, "text": reply.output_text, "thinking": "".join(part.text for item in reply.output if item.type == "reasoning" for part in item.summary)}
        given += [item.to_dict() for item in reply.output]
        given += [{"type": "function_call_output", "call_id": call.call_id, "output": tool.run(json.loads(call.arguments))} for call in calls]


def messages(client, model, prompt, stream, tool, thinking):
    said = [{"role": "user", "content": prompt}]
    while True:
        fields = {"model": model, "max_tokens": 2000, "messages": said, **({"tools": [{"name": NAME, "description": DESCRIPTION, "input_schema": SCHEMA}]} if tool else {})}
        fields.update({"thinking": {"type": "enabled", "budget_tokens": 1024}} if thinking else {})
        reply, pieces = replied(client.messages, stream, fields, "text", "get_final_message")
        calls = [block for block in reply.content if block.type == "tool_use"]
        if not calls:
            return {"pieces": pieces, **{name: "".join(getattr(block, name) for block in reply.content if block.type == name) for name in ("text", "thinking")}}
        said.append({"role": "assistant", "content": reply.content})
        said.append({"role": "user", "content": [{"type": "tool_result", "tool_use_id": call.id, "content": tool.run(call.input)} for call in calls]})


def ollama_chat(client, model, prompt, stream, tool, thinking):
    said = [{"role": "user", "content": prompt}]
    while True:
        reply = client.chat(model, said, tools=[FUNCTION] if tool else None, stream=stream, think=thinking)
        got, calls = {"text": "", "thinking": "", "pieces": 0}, []
        for part in reply if stream else [reply]:
            got["text"] += part.message.content or ""
            got["thinking"] += part.message.thinking or ""
            got["pieces"] += bool(part.message.content)
            calls += part.message.tool_calls or []
        if not calls:
            return got
        said.append({"role": "assistant", "content": got["text"], "tool_calls": calls})
        said += [{"role": "tool", "tool_name": call.function.name, "content": tool.run(call.function.arguments)} for call in calls]


def openai_chat(url, key, model, thinking, responses=False, **_):
    effort = {"reasoning": {"effort": "low", "summary": "auto"}} if responses and thinking else {"reasoning_effort": "low"} if thinking else {}
    return langchain_openai.ChatOpenAI(model=model, base_url=url + "/v1", api_key=key, max_retries=0, timeout=20, use_responses_api=responses, **effort)


def anthropic_chat(url, key, model, thinking, **_):
    return langchain_anthropic.ChatAnthropic(model=model, base_url=url, api_key=key, max_retries=0, timeout=20, max_tokens=2000, thinking={"type": "enabled", "budget_tokens": 1024} if thinking else None)


def langchain(client, prompt, stream, tool, **_):
    said = [HumanMessage(prompt)]
    asked = client.bind_tools([FUNCTION]) if tool else client
    while True:
        pieces = 0
        if stream:
            reply = None
            for piece in asked.stream(said):
                pieces += bool(piece.text)
                reply = piece if reply is None else reply + piece
        else:
            reply = asked.invoke(said)
        if not reply.tool_calls:
            thought = "".join(block.get("reasoning", "") for block in reply.content_blocks if block["type"] == "reasoning")
            return {"text": reply.text, "thinking": thought, "pieces": pieces}
        said.append(reply)
        said += [ToolMessage(tool.run(call["args"]), tool_call_id=call["id"]) for call in reply.tool_calls]
