// `node buyer-v2.mjs URL`: pays with @x402/fetch, spend controls as shipped.
import { wrapFetchWithPaymentFromConfig } from "@x402/fetch";
import { ExactEvmScheme } from "@x402/evm";
import { account, buy } from "./buyer.mjs";

await buy(wrapFetchWithPaymentFromConfig(fetch, { schemes: [{ network: "eip155:*", client: new ExactEvmScheme(account) }] }));
