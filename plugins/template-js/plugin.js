// {{name}}: masks a word in replies, wherever the stream cuts it.
//
// What belongs to one request lives in its Exchange; what is configured is read once, with the first hook.
import { get } from "tidegate:plugin/config@0.1.0";
import { add } from "tidegate:plugin/metrics@0.1.0";

let config;
const settings = () => (config ??= { word: "damn", mask: "[…]", ...JSON.parse(get()) });

class Exchange {
  held = ""; // the end of the text so far, if it may be the beginning of the word

  onEvents(events) {
    const out = [];
    for (const event of events) {
      if (event.tag === "delta" && event.val.tag === "text") {
        this.#text(this.held + event.val.val, out);
      } else {
        // Held text leaves before its part closes.
        if (event.tag === "close") this.#release(out);
        out.push(event);
      }
    }
    return { tag: "change", val: out };
  }

  #text(text, out) {
    const { word, mask } = settings();
    const pieces = text.split(word);
    if (pieces.length > 1) add("masked", "", pieces.length - 1);
    const last = pieces.pop();
    let kept = Math.min(word.length - 1, last.length);
    while (kept > 0 && !word.startsWith(last.slice(last.length - kept))) kept--;
    this.held = last.slice(last.length - kept);
    const sure = [...pieces, last.slice(0, last.length - kept)].join(mask);
    if (sure) out.push(delta(sure));
  }

  #release(out) {
    if (this.held) out.push(delta(this.held));
    this.held = "";
  }
}

const delta = (text) => ({ tag: "delta", val: { tag: "text", val: text } });

export const hooks = {
  describe() {
    const { word } = settings();
    return {
      name: "{{name}}",
      version: "0.1.0",
      hooks: { onEvents: true },
      events: { text: true },
      configSchema: JSON.stringify({
        type: "object",
        properties: { word: { type: "string", minLength: 1 }, mask: { type: "string" } },
        additionalProperties: false,
      }),
      configProblem: word ? undefined : "word: must not be empty",
      metrics: [{ name: "masked", help: "Words masked.", kind: { tag: "counter" }, label: undefined }],
    };
  },
  // Not subscribed to, but every export of the world must be there.
  onCall() {
    return { verdict: { tag: "pass" }, exchange: new Exchange() };
  },
  onEnd() {},
  Exchange,
};
