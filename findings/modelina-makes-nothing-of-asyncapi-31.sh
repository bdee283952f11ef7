#!/usr/bin/env bash
# @asyncapi/modelina 5.10.1: given a valid AsyncAPI document of version 3.1.0, which the official @asyncapi/parser
# 3.6.6 accepts, `TypeScriptGenerator` raises no error and gives one model, `type Root = any`. The same document with
# "3.0.0" on its first line gives a model for each message. Whoever generates clients in CI sees green and gets nothing.
#
# Output seen:
#   modelina 5.10.1
#   3.1.0: faults by the parser: 0; models: [ 'Root' ]
#   3.0.0: faults by the parser: 0; models: [ 'Greeting' ]
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
npm install --silent --no-audit --no-fund @asyncapi/modelina@5.10.1 @asyncapi/parser@3.6.6 >/dev/null 2>&1
cat >try.cjs <<'JS'
const { Parser } = require("@asyncapi/parser");
const { TypeScriptGenerator } = require("@asyncapi/modelina");

const payload = { $id: "Greeting", type: "object", properties: { text: { type: "string" } } };
const described = (version) => ({
  asyncapi: version,
  info: { title: "Greetings", version: "1.0.0" },
  channels: { greetings: { address: "greetings", messages: { greeting: { payload } } } },
  operations: {
    greet: {
      action: "send",
      channel: { $ref: "#/channels/greetings" },
      messages: [{ $ref: "#/channels/greetings/messages/greeting" }],
    },
  },
});

(async () => {
  console.log("modelina", require("@asyncapi/modelina/package.json").version);
  const seen = {};
  for (const version of ["3.1.0", "3.0.0"]) {
    const faults = (await new Parser().validate(JSON.stringify(described(version)))).filter((each) => each.severity === 0);
    const models = (await new TypeScriptGenerator().generate(described(version))).map((model) => model.modelName);
    console.log(`${version}: faults by the parser: ${faults.length}; models:`, models);
    seen[version] = [faults.length, ...models].join();
  }
  if (seen["3.1.0"] !== "0,Root" || seen["3.0.0"] !== "0,Greeting") throw new Error("the behaviour has changed");
})().catch((error) => { console.error(String(error)); process.exit(1); });
JS
node try.cjs
