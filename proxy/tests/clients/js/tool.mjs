// The one tool of the table: every client is given it in its own way, and must run it itself.

export const NAME = "weather";
export const DESCRIPTION = "The weather of a city";
export const SCHEMA = { type: "object", properties: { city: { type: "string" } }, required: ["city"], additionalProperties: false };

/** Remembers what it was called with. */
export class Tool {
  calls = [];

  run = (given) => {
    this.calls.push([NAME, given]);
    return `${given.city}: sunny, 21 degrees`;
  };
}
