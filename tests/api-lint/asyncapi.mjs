// Parse an AsyncAPI document, and generate a model of each message: `node asyncapi.mjs DOCUMENT DOCUMENT_3_0 DIRECTORY`.
// Fails when the parser has anything to say, or when a message has no model with all of its fields.
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { TypeScriptGenerator } from '@asyncapi/modelina';
import { Parser } from '@asyncapi/parser';

const [path, older, directory] = process.argv.slice(2);
const parsed = await new Parser().parse(readFileSync(path, 'utf8'));
const faults = parsed.diagnostics.map((each) => `${each.path.join('.')}: ${each.message} (${each.code})`);

// Modelina 5.10 knows 3.0 only: of 3.1 it makes one model of nothing, without an error.
const { document } = await new Parser().parse(readFileSync(older, 'utf8'));
if (document) {
  const generator = new TypeScriptGenerator({ modelType: 'interface', enumType: 'union' });
  const models = await generator.generateCompleteModels(document, { exportType: 'named' });
  const byName = new Map(models.map((model) => [model.modelName, model]));
  if (byName.size < models.length) faults.push('two models have one name');
  for (const model of models) writeFileSync(join(directory, `${model.modelName}.ts`), model.result);
  const messages = document.components().messages().all();
  for (const message of messages) {
    const payload = message.payload();
    const model = byName.get(payload.title());
    if (!model) faults.push(`${message.name()}: no model ${payload.title()}, only ${[...byName.keys()].join(', ')}`);
    for (const field of Object.keys(payload.properties() ?? {})) {
      const member = field.replaceAll('_', ''); // a word of the language gets a prefix
      if (model && !new RegExp(`\\b(reserved)?${member}\\??:`, 'i').test(model.result)) {
        faults.push(`${message.name()}: its model lacks ${field}`);
      }
    }
  }
  console.log(`asyncapi: ${models.length} models, of ${messages.length} messages and what is in them`);
}
for (const fault of faults) console.error(`asyncapi: ${fault}`);
process.exit(faults.length || !document ? 1 : 0);
