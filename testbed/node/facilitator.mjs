// `node facilitator.mjs`: the facilitator of @x402/core with @x402/evm: exact in both versions, and upto.
// Environment: RPC_URL, FACILITATOR_KEY, and in FACTORIES whose wallets it deploys (ERC-6492). Prints its own URL as one JSON line once it listens.
import { x402Facilitator } from "@x402/core/facilitator";
import { toFacilitatorEvmSigner } from "@x402/evm";
import { registerExactEvmScheme } from "@x402/evm/exact/facilitator";
import { UptoEvmScheme } from "@x402/evm/upto/facilitator";
import express from "express";
import { createWalletClient, http, publicActions } from "viem";
import { privateKeyToAccount } from "viem/accounts";
import { baseSepolia } from "viem/chains";

const account = privateKeyToAccount(process.env.FACILITATOR_KEY);
const client = createWalletClient({
  account,
  chain: baseSepolia,
  pollingInterval: 50,
  transport: http(process.env.RPC_URL),
}).extend(publicActions);
const signer = toFacilitatorEvmSigner({
  address: account.address,
  getCode: client.getCode,
  readContract: client.readContract,
  sendTransaction: client.sendTransaction,
  verifyTypedData: client.verifyTypedData,
  waitForTransactionReceipt: client.waitForTransactionReceipt,
  writeContract: client.writeContract,
});

const facilitator = new x402Facilitator();
const eip6492AllowedFactories = process.env.FACTORIES?.split(",") ?? [];
registerExactEvmScheme(facilitator, { signer, networks: "eip155:84532", eip6492AllowedFactories });
facilitator.register("eip155:84532", new UptoEvmScheme(signer));

const app = express();
app.use(express.json({ limit: "64kb" }));
app.get("/supported", (_request, answer) => answer.json(facilitator.getSupported()));
for (const step of ["verify", "settle"]) {
  app.post(`/${step}`, async (request, answer) => {
    const { paymentPayload, paymentRequirements } = request.body;
    try {
      answer.json(await facilitator[step](paymentPayload, paymentRequirements));
    } catch (error) {
      console.error(error);
      answer.status(500).json({ error: String(error?.message ?? error) });
    }
  });
}
const server = app.listen(0, "127.0.0.1", () => console.log(JSON.stringify({ url: `http://127.0.0.1:${server.address().port}` })));
