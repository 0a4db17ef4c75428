// One module of clients before every model: `node table.mjs MODULE` with {url, key, cases} on standard input.
//
// Every case is printed when it is done, as one line of JSON: which client, model and case, and what the client got or
// what it threw. What it should have got, test_table.py knows.

import { Tool } from "./tool.mjs";

const { url, key, cases } = JSON.parse(await new Response(process.stdin).text());
const { open } = await import(`./${process.argv[2]}.mjs`);

for (const [client, ask] of Object.entries(open(url, key))) {
  for (const { name, ...asked } of cases) {
    const tool = asked.tool ? new Tool() : undefined;
    const got = await ask({ ...asked, tool }).catch(thrown);
    console.log(JSON.stringify({ client, model: asked.model, case: name, got: { ...got, calls: tool?.calls ?? [] } }));
  }
}

function thrown(error) {
  return { error: error.constructor?.name ?? error.name, status: error.status ?? error.statusCode ?? error.status_code ?? null, message: String(error.message ?? error) };
}
