// The official OpenAI client: chat completions, with its own runner of tools, and responses.

import OpenAI from "openai";
import { DESCRIPTION, NAME, SCHEMA } from "./tool.mjs";

export function open(url, apiKey) {
  const client = new OpenAI({ baseURL: `${url}/v1`, apiKey, maxRetries: 0, timeout: 20000 });
  return { "openai chat": (asked) => chat(client, asked), "openai responses": (asked) => responses(client, asked) };
}

async function chat(client, { model, prompt, stream, tool, thinking }) {
  const body = { model, stream, messages: [{ role: "user", content: prompt }], ...(thinking ? { reasoning_effort: "low" } : {}) };
  if (tool) {
    const declared = { name: NAME, description: DESCRIPTION, parameters: SCHEMA, parse: JSON.parse, function: tool.run };
    const runner = client.chat.completions.runTools({ ...body, tools: [{ type: "function", function: declared }] });
    return { text: await runner.finalContent() };
  }
  const got = { text: "", thinking: "", pieces: 0 };
  const reply = await client.chat.completions.create(body);
  for await (const part of stream ? reply : [reply]) {
    for (const choice of part.choices) {
      const said = stream ? choice.delta : choice.message;
      got.text += said.content ?? "";
      got.thinking += said.reasoning_content ?? "";
      got.pieces += said.content ? 1 : 0;
    }
  }
  return got;
}

async function responses(client, { model, prompt, stream, tool, thinking }) {
  const input = [{ role: "user", content: prompt }];
  const tools = tool ? [{ type: "function", name: NAME, description: DESCRIPTION, parameters: SCHEMA, strict: true }] : undefined;
  for (;;) {
    const body = { model, input, tools, store: false, ...(thinking ? { reasoning: { effort: "low", summary: "auto" } } : {}) };
    const got = { pieces: 0 };
    let reply;
    if (stream) {
      const events = client.responses.stream(body);
      events.on("response.output_text.delta", () => (got.pieces += 1));
      reply = await events.finalResponse();
    } else {
      reply = await client.responses.create(body);
    }
    // The client hands out a failed response instead of throwing.
    if (reply.status === "failed") return { error: "status failed", status: null, message: reply.error.message };
    const calls = reply.output.filter((item) => item.type === "function_call");
    if (!calls.length) {
      const thought = reply.output.filter((item) => item.type === "reasoning").flatMap((item) => item.summary);
      return { ...got, text: reply.output_text, thinking: thought.map((part) => part.text).join("") };
    }
    input.push(...reply.output);
    input.push(...calls.map((call) => ({ type: "function_call_output", call_id: call.call_id, output: tool.run(JSON.parse(call.arguments)) })));
  }
}
