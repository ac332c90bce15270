// `node openai-buyer.mjs URL MODEL`: the official OpenAI client, unmodified, with x402's fetch. Asks for
// everything that is sold and prints what came back as one JSON line. Pays by X402_SCHEME: exact, or upto.
import { wrapFetchWithPaymentFromConfig } from "@x402/fetch";
import { ExactEvmScheme } from "@x402/evm";
import { UptoEvmScheme } from "@x402/evm/upto/client";
import OpenAI from "openai";
import { account, url } from "./buyer.mjs";

const model = process.argv[3];
const messages = [{ role: "user", content: "hello" }];
const Scheme = process.env.X402_SCHEME === "upto" ? UptoEvmScheme : ExactEvmScheme;
const fetch402 = wrapFetchWithPaymentFromConfig(fetch, { schemes: [{ network: "eip155:*", client: new Scheme(account) }] });
const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: "none", maxRetries: 0, fetch: fetch402 });

const models = [];
for await (const found of client.models.list()) models.push(found.id);
const chat = await client.chat.completions.create({ model, messages, max_tokens: 7 });
let [pieces, usage, hidden] = [0, null, true];
const streamed = { model, messages, max_tokens: 6, temperature: 0, stream: true };
const wanted = { ...streamed, stream_options: { include_usage: true } };
for await (const chunk of await client.chat.completions.create(wanted)) {
  pieces += chunk.choices[0]?.delta?.content ? 1 : 0;
  usage = chunk.usage ?? usage;
}
for await (const chunk of await client.chat.completions.create(streamed)) hidden &&= !chunk.usage;
const text = await client.completions.create({ model, prompt: "hello", max_tokens: 5 });
const embedding = await client.embeddings.create({ model, input: "hello", encoding_format: "float" });
const response = await client.responses.create({ model, input: "hello", max_output_tokens: 4 });
// The second stream says nothing of its usage: it is the first one's.
const all = [chat.usage, usage, usage, text.usage, embedding.usage, response.usage];
const sum = (...names) => all.reduce((total, one) => total + (names.map((name) => one[name]).find((count) => count !== undefined) ?? 0), 0);
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
    input: sum("prompt_tokens", "input_tokens"),
    output: sum("completion_tokens", "output_tokens"),
  }),
);
