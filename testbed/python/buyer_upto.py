"""`buyer_upto.py URL`: pays with PyPI x402 2.x over httpx by the scheme upto alone, spend controls as shipped."""

import asyncio
import base64
import json
import os
import sys

from eth_account import Account
from x402 import x402Client
from x402.http.clients.httpx import x402HttpxClient
from x402.mechanisms.evm.signers import EthAccountSigner
from x402.mechanisms.evm.upto.client import UptoEvmScheme


async def main() -> int:
    """Buys argv[1] and prints the answer as one JSON line."""
    client = x402Client()
    client.register("eip155:*", UptoEvmScheme(EthAccountSigner(Account.from_key(os.environ["X402_KEY"]))))
    async with x402HttpxClient(client, timeout=60) as http:
        answer = await http.get(sys.argv[1])
    receipt = answer.headers.get("payment-response")
    decoded = json.loads(base64.b64decode(receipt)) if receipt else None
    print(json.dumps({"status": answer.status_code, "body": answer.text, "receipt": decoded}))
    return 0


sys.exit(asyncio.run(main()))
