// The official Ollama client.

import { Ollama } from "ollama";
import { DESCRIPTION, NAME, SCHEMA } from "./tool.mjs";

export function open(url, key) {
  const client = new Ollama({ host: url, headers: { Authorization: `Bearer ${key}` } });
  return { "ollama chat": (asked) => chat(client, asked) };
}

async function chat(client, { model, prompt, stream, tool, thinking }) {
  const messages = [{ role: "user", content: prompt }];
  const tools = tool ? [{ type: "function", function: { name: NAME, description: DESCRIPTION, parameters: SCHEMA } }] : undefined;
  for (;;) {
    const got = { text: "", thinking: "", pieces: 0 };
    const calls = [];
    const reply = await client.chat({ model, messages, stream, tools, think: thinking });
    for await (const part of stream ? reply : [reply]) {
      got.text += part.message.content ?? "";
      got.thinking += part.message.thinking ?? "";
      got.pieces += part.message.content ? 1 : 0;
      calls.push(...(part.message.tool_calls ?? []));
    }
    if (!calls.length) return got;
    messages.push({ role: "assistant", content: got.text, tool_calls: calls });
    messages.push(...calls.map((call) => ({ role: "tool", tool_name: call.function.name, content: tool.run(call.function.arguments) })));
  }
}
