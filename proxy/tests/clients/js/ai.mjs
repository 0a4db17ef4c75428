// Vercel's AI SDK with each of its providers: it runs the tools, and every provider speaks an API in its own way.

import { createAnthropic } from "@ai-sdk/anthropic";
import { createOpenAI } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { generateText, isStepCount, jsonSchema, streamText, tool as declared } from "ai";
import { createOllama } from "ollama-ai-provider-v2";
import { DESCRIPTION, NAME, SCHEMA } from "./tool.mjs";

// What it would say of options that a model cannot take goes to the console otherwise.
globalThis.AI_SDK_LOG_WARNINGS = false;

export function open(url, apiKey) {
  const openai = createOpenAI({ baseURL: `${url}/v1`, apiKey });
  const anthropic = createAnthropic({ baseURL: `${url}/v1`, apiKey });
  const compatible = createOpenAICompatible({ name: "tidegate", baseURL: `${url}/v1`, apiKey, includeUsage: true });
  const ollama = createOllama({ baseURL: `${url}/api`, headers: { Authorization: `Bearer ${apiKey}` } });
  // Of a model it does not know, the provider believes that it cannot reason, unless it is told.
  const effort = { openai: { forceReasoning: true, reasoningEffort: "low", reasoningSummary: "auto", store: false } };
  return {
    "ai openai responses": (asked) => ask(openai(asked.model), asked, asked.thinking ? effort : { openai: { store: false } }),
    "ai openai chat": (asked) => ask(openai.chat(asked.model), asked, asked.thinking ? effort : {}),
    "ai anthropic": (asked) => ask(anthropic(asked.model), asked, asked.thinking ? { anthropic: { thinking: { type: "enabled", budgetTokens: 1024 } } } : {}),
    "ai openai-compatible": (asked) => ask(compatible(asked.model), asked, asked.thinking ? { tidegate: { reasoningEffort: "low" } } : {}),
    "ai ollama": (asked) => ask(ollama(asked.model), asked, asked.thinking ? { ollama: { think: true } } : {}),
  };
}

async function ask(model, { prompt, stream, tool }, providerOptions) {
  const tools = tool && { [NAME]: declared({ description: DESCRIPTION, inputSchema: jsonSchema(SCHEMA), execute: tool.run }) };
  const request = { model, prompt, tools, providerOptions, maxRetries: 0, stopWhen: isStepCount(4) };
  if (!stream) {
    const reply = await generateText(request);
    return { text: reply.text, thinking: reply.reasoningText ?? "" };
  }
  const got = { text: "", thinking: "", pieces: 0 };
  for await (const part of streamText({ ...request, onError: () => {} }).fullStream) {
    if (part.type === "error") throw part.error;
    if (part.type === "text-delta") {
      got.text += part.text;
      got.pieces += 1;
    }
    if (part.type === "reasoning-delta") got.thinking += part.text;
  }
  return got;
}
