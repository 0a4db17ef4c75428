"""Scripted model servers that speak one API each, as faithfully as the published references and real servers do.

They exist so that translation can be tested from the client's side to the backend's side: each keeps the requests it
got, answers what the test put into its script, and knows nothing but its own path.
"""

import http.server
import json
import select
import socket
import threading
import time

MODEL = "backend-model"


class Whole:
    """A reply in one piece."""

    def __init__(self, body, status=200, headers=()):
        self.body, self.status, self.headers = body, status, dict(headers)


class Stream:
    """Server-sent events, or frames of another type. `then` says what follows the last: the proper end, a cut connection, or silence."""

    def __init__(self, frames, then="end", kind="text/event-stream"):
        self.frames, self.then, self.kind = frames, then, kind


class Fake:
    """A server with a script. An entry of the script is a reply, or a function from the request's body to one."""

    path = ""

    def __init__(self):
        self.requests = []
        self.bodies = []
        self.headers = []
        self.script = []
        self.left = threading.Event()
        fake = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            # A head and a body are two writes: together they would wait 40 ms for the other side's acknowledgement.
            disable_nagle_algorithm = True

            def do_GET(self):
                fake.get(self)

            def do_POST(self):
                fake.post(self)

            def log_message(self, *_):
                pass

        class Server(http.server.ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, request, client_address):
                pass

        self.server = Server(("127.0.0.1", 0), Handler)
        self.url = "http://127.0.0.1:{}".format(self.server.server_port)
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()

    def plays(self, *script):
        """The next replies; the last one is repeated."""
        self.script = list(script)
        self.requests, self.bodies, self.headers = [], [], []
        self.left.clear()

    def get(self, handler):
        known = handler.path in ("/v1/models", "/health")
        send(handler, Whole({"object": "list", "data": [{"id": MODEL, "object": "model"}]} if known else self.error(404, "no such path"), 200 if known else 404))

    def post(self, handler):
        raw = handler.rfile.read(int(handler.headers.get("content-length", 0)))
        body = json.loads(raw or b"null")
        if handler.path != self.path:
            return send(handler, Whole(self.error(404, "this server knows only " + self.path), 404))
        self.requests.append(body)
        self.bodies.append(raw.decode())
        self.headers.append(dict(handler.headers.items()))
        reply = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        reply = reply(body) if callable(reply) else reply
        if isinstance(reply, Whole):
            return send(handler, reply)
        self.stream(handler, reply)

    def stream(self, handler, reply):
        handler.send_response(200)
        handler.send_header("content-type", reply.kind)
        handler.send_header("transfer-encoding", "chunked")
        handler.end_headers()
        try:
            for frame in reply.frames:
                data = frame.encode()
                handler.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
                handler.wfile.flush()
                time.sleep(0.002)
            if reply.then == "end":
                handler.wfile.write(b"0\r\n\r\n")
                return
        except OSError:
            self.left.set()
            handler.close_connection = True
            return
        handler.close_connection = True
        if reply.then == "cut":
            handler.connection.shutdown(socket.SHUT_RDWR)
            return
        # Silence, until the gateway hangs up.
        readable, _, _ = select.select([handler.connection], [], [], 20)
        if readable and not peeked(handler.connection):
            self.left.set()


def peeked(connection):
    try:
        return connection.recv(1, socket.MSG_PEEK)
    except OSError:
        return b""


def send(handler, reply):
    data = json.dumps(reply.body).encode()
    handler.send_response(reply.status)
    handler.send_header("content-type", "application/json")
    handler.send_header("content-length", str(len(data)))
    for name, value in reply.headers.items():
        handler.send_header(name, value)
    handler.end_headers()
    handler.wfile.write(data)


class OpenAIOnly(Fake):
    """Knows POST /v1/chat/completions and nothing of Anthropic."""

    path = "/v1/chat/completions"

    def error(self, status, message):
        return {"error": {"message": message, "type": "invalid_request_error" if status < 500 else "server_error", "param": None, "code": None}}


class AnthropicOnly(Fake):
    """Knows POST /v1/messages and nothing of OpenAI."""

    path = "/v1/messages"

    def error(self, status, message):
        kinds = {400: "invalid_request_error", 404: "not_found_error", 429: "rate_limit_error", 529: "overloaded_error"}
        return {"type": "error", "error": {"type": kinds.get(status, "api_error"), "message": message}, "request_id": "req_fake"}


class ResponsesOnly(OpenAIOnly):
    """Knows POST /v1/responses and nothing else."""

    path = "/v1/responses"


class OllamaOnly(Fake):
    """Knows POST /api/chat and nothing of the others."""

    path = "/api/chat"

    def error(self, status, message):
        return {"error": message}


# Chat completions ------------------------------------------------------------------------------------------------


def chat_usage(prompt, completion, cached=0):
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion, "prompt_tokens_details": {"cached_tokens": cached}}


def call(call_id, name, arguments):
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}


def chat(content=None, finish="stop", usage=None, tool_calls=None, **more):
    """A whole chat completion."""
    message = {"role": "assistant", "content": content, "refusal": None, **more}
    if tool_calls:
        message["tool_calls"] = tool_calls
    return Whole({
        "id": "chatcmpl-fake", "object": "chat.completion", "created": 1700000000, "model": MODEL, "system_fingerprint": "fp_fake",
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": finish}],
        "usage": usage or chat_usage(20, 7, 5),
    })


def chunk(choices, **more):
    body = {"id": "chatcmpl-fake", "object": "chat.completion.chunk", "created": 1700000000, "model": MODEL, "system_fingerprint": "fp_fake", "choices": choices, **more}
    return "data: {}\n\n".format(json.dumps(body))


def delta(**fields):
    return chunk([{"index": 0, "delta": fields, "logprobs": None, "finish_reason": None}])


def chat_stream(*deltas, finish="stop", usage=None, then="end"):
    """A streamed chat completion: the usage chunk comes last, and only when it was asked for."""

    def reply(body):
        frames = [delta(role="assistant", content="")] + [delta(**fields) for fields in deltas]
        if then == "end":
            frames.append(chunk([{"index": 0, "delta": {}, "logprobs": None, "finish_reason": finish}]))
            if (body.get("stream_options") or {}).get("include_usage"):
                frames.append(chunk([], usage=usage or chat_usage(20, 7, 5)))
            frames.append("data: [DONE]\n\n")
        return Stream(frames, then)

    return reply


def tool_delta(index, arguments=None, call_id=None, name=None):
    """A fragment of a tool call: the first has id and name, later ones only arguments."""
    function = {"arguments": arguments if arguments is not None else ""}
    if call_id:
        return {"tool_calls": [{"index": index, "id": call_id, "type": "function", "function": {"name": name, **function}}]}
    return {"tool_calls": [{"index": index, "function": function}]}


# Messages --------------------------------------------------------------------------------------------------------


def message_usage(given, output, cache_read=4, cache_write=0):
    return {"input_tokens": given, "cache_creation_input_tokens": cache_write, "cache_read_input_tokens": cache_read, "output_tokens": output, "service_tier": "standard"}


def message(*content, stop="end_turn", stop_sequence=None, usage=None):
    """A whole message."""
    return Whole({
        "id": "msg_fake", "type": "message", "role": "assistant", "model": MODEL, "content": list(content),
        "stop_reason": stop, "stop_sequence": stop_sequence, "usage": usage or message_usage(21, 9),
    })


def event(name, /, **fields):
    return "event: {}\ndata: {}\n\n".format(name, json.dumps({"type": name, **fields}))


def text(words):
    return {"type": "text", "text": words}


def thinking(words, signature="c2lnbmF0dXJl"):
    return {"type": "thinking", "thinking": words, "signature": signature}


def tool_use(call_id, name, given):
    return {"type": "tool_use", "id": call_id, "name": name, "input": given}


def pieces(words, size=None):
    """The words cut into pieces of that many characters; into halves without a size."""
    middle = len(words) // 2
    return [words[at:at + size] for at in range(0, len(words), size)] if size else [words[:middle], words[middle:]]


def block_events(index, block, size=None):
    """One content block as events: started empty, filled by deltas, stopped. Input that is a text is sent as it is."""
    kind = block["type"]
    if kind == "text":
        empty, deltas = text(""), [{"type": "text_delta", "text": half} for half in pieces(block["text"], size)]
    elif kind == "thinking":
        empty = thinking("", "")
        deltas = [{"type": "thinking_delta", "thinking": half} for half in pieces(block["thinking"], size)]
        deltas.append({"type": "signature_delta", "signature": block["signature"]})
    else:
        empty, given = {**block, "input": {}}, block["input"]
        given = given if isinstance(given, str) else json.dumps(given)
        deltas = [{"type": "input_json_delta", "partial_json": half} for half in ["", *pieces(given, size)]] if block["input"] else []
    yield event("content_block_start", index=index, content_block=empty)
    for fields in deltas:
        yield event("content_block_delta", index=index, delta=fields)
    yield event("content_block_stop", index=index)


def message_stream(*content, stop="end_turn", stop_sequence=None, given=21, output=9, cache_read=4, then="end", size=None):
    """A streamed message, with a ping where Anthropic sends one."""
    start = {"id": "msg_fake", "type": "message", "role": "assistant", "model": MODEL, "content": [], "stop_reason": None, "stop_sequence": None,
             "usage": message_usage(given, 1, cache_read)}
    frames = [event("message_start", message=start), event("ping")]
    for index, block in enumerate(content):
        frames += block_events(index, block, size)
    if then == "end":
        frames.append(event("message_delta", delta={"stop_reason": stop, "stop_sequence": stop_sequence}, usage={"output_tokens": output}))
        frames.append(event("message_stop"))
    return Stream(frames, then)


# Responses -------------------------------------------------------------------------------------------------------


def reasoning_item(thought):
    return {"id": "rs_fake", "type": "reasoning", "summary": [{"type": "summary_text", "text": thought}]}


def message_item(words):
    return {"id": "msg_fake", "type": "message", "status": "completed", "role": "assistant", "content": [{"type": "output_text", "text": words, "annotations": [], "logprobs": []}]}


def function_item(call_id, name, arguments):
    return {"id": "fc_" + call_id, "type": "function_call", "status": "completed", "call_id": call_id, "name": name, "arguments": arguments}


def custom_item(call_id, name, given):
    return {"id": "ctc_" + call_id, "type": "custom_tool_call", "status": "completed", "call_id": call_id, "name": name, "input": given}


def response_body(status, output, usage=None):
    return {"id": "resp_fake", "object": "response", "created_at": 1700000000, "status": status, "error": None, "incomplete_details": None, "model": MODEL, "output": output,
            "parallel_tool_calls": True, "tool_choice": "auto", "tools": [], "store": False, "usage": usage}


def response(*items):
    """A whole response."""
    usage = {"input_tokens": 20, "input_tokens_details": {"cached_tokens": 5}, "output_tokens": 7, "output_tokens_details": {"reasoning_tokens": 0}, "total_tokens": 27}
    return Whole(response_body("completed", list(items), usage))


def item_events(index, item):
    """One item as events: added empty, filled by deltas, done."""
    at = {"output_index": index}
    if item["type"] in ("function_call", "custom_tool_call"):
        field, name = ("arguments", "function_call_arguments") if item["type"] == "function_call" else ("input", "custom_tool_call_input")
        yield "response.output_item.added", {**at, "item": {**item, "status": "in_progress", field: ""}}
        at["item_id"] = item["id"]
        yield from (("response.{}.delta".format(name), {**at, "delta": piece}) for piece in pieces(item[field]))
        yield "response.{}.done".format(name), {**at, field: item[field]}
    else:
        thought = item["type"] == "reasoning"
        list_name, index_name, part_name, text_name = ("summary", "summary_index", "reasoning_summary_part", "reasoning_summary_text") if thought else ("content", "content_index", "content_part", "output_text")
        [part] = item[list_name]
        yield "response.output_item.added", {**at, "item": {**item, list_name: [], **({} if thought else {"status": "in_progress"})}}
        at.update({"item_id": item["id"], index_name: 0})
        yield "response.{}.added".format(part_name), {**at, "part": {**part, "text": ""}}
        yield from (("response.{}.delta".format(text_name), {**at, "delta": piece}) for piece in pieces(part["text"]))
        yield "response.{}.done".format(text_name), {**at, "text": part["text"]}
        yield "response.{}.done".format(part_name), {**at, "part": part}
    yield "response.output_item.done", {"output_index": index, "item": item}


def response_stream(*items, then="end"):
    """A streamed response, numbered; nothing is reported before its last event."""
    events = [(name, {"response": response_body("in_progress", [])}) for name in ("response.created", "response.in_progress")]
    for index, item in enumerate(items):
        events += item_events(index, item)
    if then == "end":
        events.append(("response.completed", {"response": response(*items).body}))
    else:
        # What breaks off does so before anything is done.
        events = [made for made in events if not made[0].endswith(".done")]
    return Stream([event(name, sequence_number=number, **fields) for number, (name, fields) in enumerate(events)], then)


# Ollama ----------------------------------------------------------------------------------------------------------


def ollama_line(done=False, **message):
    line = {"model": MODEL, "created_at": "2025-11-20T08:52:19.385406455Z", "message": {"role": "assistant", "content": "", **message}, "done": done}
    if done:
        line.update(done_reason="stop", total_duration=4883583458, load_duration=1334875, prompt_eval_count=26, prompt_eval_duration=342546000, eval_count=9, eval_duration=4535599000)
    return line


def ollama_reply(*messages, then="end"):
    """Whole or streamed, as asked; a stream unless it was refused. `messages`: what each line says."""

    def reply(body):
        if body.get("stream") is False:
            merged = {"content": "".join(item.get("content", "") for item in messages)}
            thought = "".join(item.get("thinking", "") for item in messages)
            calls = [made for item in messages for made in item.get("tool_calls", [])]
            return Whole(ollama_line(True, **merged, **({"thinking": thought} if thought else {}), **({"tool_calls": calls} if calls else {})))
        lines = [ollama_line(**item) for item in messages] + ([ollama_line(True)] if then == "end" else [])
        return Stream([json.dumps(line) + "\n" for line in lines], then, "application/x-ndjson")

    return reply
