// `node express-peer.mjs`: a paid and a free route behind @x402/express, for the benchmark.
// Environment: FACILITATOR_URL, PAY_TO. Prints its own URL as one JSON line once it listens.
import { HTTPFacilitatorClient } from "@x402/core/server";
import { ExactEvmScheme } from "@x402/evm/exact/server";
import { paymentMiddleware, x402ResourceServer } from "@x402/express";
import express from "express";

const facilitator = new HTTPFacilitatorClient({ url: process.env.FACILITATOR_URL });
const resources = new x402ResourceServer(facilitator).register("eip155:84532", new ExactEvmScheme());
const accepts = { scheme: "exact", price: "$0.001", network: "eip155:84532", payTo: process.env.PAY_TO };

const app = express();
app.disable("x-powered-by");
app.get("/free", (_request, answer) => answer.type("text/plain").send("hello"));
app.use(paymentMiddleware({ "GET /paid": { accepts, description: "bench" } }, resources));
app.get("/paid", (_request, answer) => answer.type("text/plain").send("hello"));
const server = app.listen(0, "127.0.0.1", () => console.log(JSON.stringify({ url: `http://127.0.0.1:${server.address().port}` })));
