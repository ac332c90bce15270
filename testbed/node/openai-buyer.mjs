// `node openai-buyer.mjs URL MODEL`: the official OpenAI client, unmodified, with x402's fetch. Asks for
// everything that is sold and prints what came back as one JSON line.
import { wrapFetchWithPaymentFromConfig } from "@x402/fetch";
import { ExactEvmScheme } from "@x402/evm";
import OpenAI from "openai";
import { account, url } from "./buyer.mjs";

const model = process.argv[3];
const messages = [{ role: "user", content: "hello" }];
const fetch402 = wrapFetchWithPaymentFromConfig(fetch, { schemes: [{ network: "eip155:*", client: new ExactEvmScheme(account) }] });
const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: "none", maxRetries: 0, fetch: fetch402 });

const models = [];
for await (const found of client.models.list()) models.push(found.id);
const chat = await client.chat.completions.create({ model, messages, max_tokens: 7 });
let [pieces, usage, hidden] = [0, null, true];
const wanted = { model, messages, max_tokens: 6, stream: true, stream_options: { include_usage: true } };
for await (const chunk of await client.chat.completions.create(wanted)) {
  pieces += chunk.choices[0]?.delta?.content ? 1 : 0;
  usage = chunk.usage ?? usage;
}
for await (const chunk of await client.chat.completions.create({ model, messages, max_tokens: 6, stream: true })) hidden &&= !chunk.usage;
const text = await client.completions.create({ model, prompt: "hello", max_tokens: 5 });
const embedding = await client.embeddings.create({ model, input: "hello", encoding_format: "float" });
const response = await client.responses.create({ model, input: "hello", max_output_tokens: 4 });
console.log(
  JSON.stringify({
    models,
    chat: chat.usage.completion_tokens,
    model: chat.model,
    streamed: usage.completion_tokens,
    pieces,
    hidden,
    completion: text.usage.completion_tokens,
    embedding: embedding.data[0].embedding.length,
    embedded: embedding.usage.prompt_tokens,
    response: response.usage.output_tokens,
  }),
);
