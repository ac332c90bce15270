// What both buyers share: the answer as one JSON line, a failure as one JSON line and exit code 1.
import { privateKeyToAccount } from "viem/accounts";

/** The payer of `X402_KEY` (0x and 64 hex digits). */
export const account = privateKeyToAccount(process.env.X402_KEY);

/** The URL to buy: the first argument. */
export const url = process.argv[2];

const decode = (header) => (header ? JSON.parse(Buffer.from(header, "base64").toString("utf8")) : null);

/** Buys with `pay`, a `fetch` that pays, and prints what came back. */
export async function buy(pay) {
  try {
    const answer = await pay(url, { method: "GET" });
    const receipt = decode(answer.headers.get("payment-response") ?? answer.headers.get("x-payment-response"));
    console.log(JSON.stringify({ status: answer.status, body: await answer.text(), receipt }));
  } catch (error) {
    console.log(JSON.stringify({ status: 0, body: "", receipt: null, error: String(error?.stack ?? error) }));
    process.exitCode = 1;
  }
}
