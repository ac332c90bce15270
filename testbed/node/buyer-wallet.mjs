// `node buyer-wallet.mjs URL`: pays with @x402/fetch from a smart wallet, which need not be deployed yet. `WALLET` is its
// address, `FACTORY` deploys it when it is called with `FACTORY_DATA`, and `X402_KEY` is its owner's.
import { wrapFetchWithPaymentFromConfig } from "@x402/fetch";
import { ExactEvmScheme } from "@x402/evm";
import { serializeErc6492Signature } from "viem";
import { account, buy } from "./buyer.mjs";

const { WALLET, FACTORY, FACTORY_DATA } = process.env;
const signTypedData = async (message) =>
  serializeErc6492Signature({ address: FACTORY, data: FACTORY_DATA, signature: await account.signTypedData(message) });
const client = new ExactEvmScheme({ address: WALLET, signTypedData });

await buy(wrapFetchWithPaymentFromConfig(fetch, { schemes: [{ network: "eip155:*", client }] }));
