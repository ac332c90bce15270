// `node buyer-id.mjs URL ID`: pays with @x402/fetch, and names the purchase with @x402/extensions.
import { x402Client, wrapFetchWithPayment } from "@x402/fetch";
import { ExactEvmScheme } from "@x402/evm";
import { appendPaymentIdentifierToExtensions } from "@x402/extensions/payment-identifier";
import { account, buy } from "./buyer.mjs";

const client = new x402Client().register("eip155:*", new ExactEvmScheme(account));
client.onBeforePaymentCreation(async ({ paymentRequired }) => {
  appendPaymentIdentifierToExtensions(paymentRequired.extensions ?? {}, process.argv[3]);
});
await buy(wrapFetchWithPayment(fetch, client));
