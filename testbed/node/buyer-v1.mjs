// `node buyer-v1.mjs URL`: pays with x402-fetch, protocol version 1, its default ceiling as shipped.
import { createWalletClient, http } from "viem";
import { baseSepolia } from "viem/chains";
import { wrapFetchWithPayment } from "x402-fetch";
import { account, buy } from "./buyer.mjs";

// The wallet only signs; nothing is ever sent to this transport.
const wallet = createWalletClient({ account, chain: baseSepolia, transport: http("http://127.0.0.1:9") });
await buy(wrapFetchWithPayment(fetch, wallet));
