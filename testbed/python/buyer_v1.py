"""`buyer_v1.py URL`: pays with PyPI x402 1.0.0 over httpx, protocol version 1."""

import asyncio
import base64
import json
import os
import sys

from eth_account import Account
from x402.clients.httpx import x402HttpxClient


async def main() -> int:
    """Buys argv[1] and prints the answer as one JSON line."""
    async with x402HttpxClient(account=Account.from_key(os.environ["X402_KEY"]), timeout=60) as http:
        answer = await http.get(sys.argv[1])
    receipt = answer.headers.get("x-payment-response")
    decoded = json.loads(base64.b64decode(receipt)) if receipt else None
    print(json.dumps({"status": answer.status_code, "body": answer.text, "receipt": decoded}))
    return 0


sys.exit(asyncio.run(main()))
