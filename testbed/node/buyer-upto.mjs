// `node buyer-upto.mjs URL`: pays with @x402/fetch by the scheme upto alone, spend controls as shipped.
import { wrapFetchWithPaymentFromConfig } from "@x402/fetch";
import { UptoEvmScheme } from "@x402/evm/upto/client";
import { account, buy } from "./buyer.mjs";

await buy(wrapFetchWithPaymentFromConfig(fetch, { schemes: [{ network: "eip155:*", client: new UptoEvmScheme(account) }] }));
