// The official Anthropic client, with its own runner of tools (which first asks for a thread that the server keeps).

import Anthropic from "@anthropic-ai/sdk";
import { betaTool } from "@anthropic-ai/sdk/helpers/beta/json-schema";
import { DESCRIPTION, NAME, SCHEMA } from "./tool.mjs";

export function open(url, apiKey) {
  const client = new Anthropic({ baseURL: url, apiKey, maxRetries: 0, timeout: 20000 });
  return { "anthropic messages": (asked) => messages(client, asked) };
}

async function messages(client, { model, prompt, stream, tool, thinking }) {
  const body = { model, max_tokens: 2000, messages: [{ role: "user", content: prompt }], ...(thinking ? { thinking: { type: "enabled", budget_tokens: 1024 } } : {}) };
  if (tool) {
    const tools = [betaTool({ name: NAME, description: DESCRIPTION, inputSchema: SCHEMA, run: tool.run })];
    let reply;
    for await (const turn of client.beta.messages.toolRunner({ ...body, tools, stream })) {
      reply = stream ? await turn.finalMessage() : turn;
    }
    return { text: words(reply, "text") };
  }
  if (!stream) {
    const reply = await client.messages.create(body);
    return { text: words(reply, "text"), thinking: words(reply, "thinking") };
  }
  const got = { pieces: 0 };
  const events = client.messages.stream(body);
  events.on("text", () => (got.pieces += 1));
  const reply = await events.finalMessage();
  return { ...got, text: words(reply, "text"), thinking: words(reply, "thinking") };
}

function words(reply, kind) {
  return reply.content.filter((block) => block.type === kind).map((block) => block[kind]).join("");
}
