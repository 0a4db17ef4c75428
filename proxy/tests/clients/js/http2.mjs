// Clients over HTTP/2 that ask all the time until their input ends, then say how it went. Node's own client: Python's
// (h2 4.4) takes a GOAWAY for the end of the connection and fails what is under way on it.

import { readFileSync } from "node:fs";
import { connect } from "node:http2";

const { url, papers, key, clients } = JSON.parse(process.argv[2]);
const read = (name) => readFileSync(`${papers}/${name}`);
const said = { served: 0, again: 0, sessions: 0, errors: [] };
let over = false;
process.stdin.on("end", () => (over = true)).resume();

// Two clients to a connection; one that is told to go takes nothing new and finishes what it has.
class Shared {
  session() {
    if (!this.open) {
      const open = connect(url, { ca: read("ca.pem"), cert: read("client.pem"), key: read("client.key") });
      const leave = () => this.open === open && (this.open = undefined);
      open.on("goaway", leave).on("close", leave).on("error", leave);
      this.open = open;
      said.sessions += 1;
    }
    return this.open;
  }
}

function ask(session, stream) {
  return new Promise((resolve, reject) => {
    const request = session.request({ ":method": "POST", ":path": "/v1/chat/completions", "x-api-key": key, "content-type": "application/json" });
    let [status, text] = [0, ""];
    request.setEncoding("utf8");
    request.on("response", (headers) => (status = headers[":status"])).on("data", (data) => (text += data));
    request.on("error", (error) => reject(Object.assign(error, { reset: request.rstCode })));
    request.on("end", () => (status === 200 ? resolve(text) : reject(new Error(`${status} ${text}`))));
    request.end(JSON.stringify({ model: "m", messages: [{ role: "user", content: "x" }], stream }));
  });
}

async function client(shared, number) {
  const [stream, pause] = [number % 2 === 0, [0, 0, 5, 20, 100, 300][number % 6]];
  while (!over) {
    try {
      const text = await ask(shared.session(), stream);
      if (!(stream ? text.endsWith("data: [DONE]\n\n") : JSON.parse(text).choices[0].message.content === "Hi")) throw new Error(text);
      said.served += 1;
    } catch (error) {
      // REFUSED_STREAM: surely not begun, so that it may be asked again (RFC 9113 §8.7). Nothing else may be.
      if (error.reset === 7) said.again += 1;
      else said.errors.push(String(error));
    }
    await new Promise((resolve) => setTimeout(resolve, pause));
  }
}

const shared = Array.from({ length: Math.ceil(clients / 2) }, () => new Shared());
await Promise.all(Array.from({ length: clients }, (_, number) => client(shared[number >> 1], number)));
shared.forEach((each) => each.open?.close());
console.log(JSON.stringify(said));
