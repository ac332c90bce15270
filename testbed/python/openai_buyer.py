"""`openai_buyer.py URL MODEL`: the official OpenAI client, unmodified, with the x402 client as its transport.

Asks for everything that is sold and prints what came back as one JSON line. Pays by X402_SCHEME: exact, or upto.
"""

import asyncio
import json
import os
import sys

from eth_account import Account
from openai import AsyncOpenAI
from x402 import x402Client
from x402.http.clients.httpx import x402HttpxClient
from x402.mechanisms.evm.exact.register import register_exact_evm_client
from x402.mechanisms.evm.signers import EthAccountSigner
from x402.mechanisms.evm.upto.client import UptoEvmScheme

URL, MODEL = sys.argv[1:3]
MESSAGES = [{"role": "user", "content": "hello"}]


async def main() -> None:
    """Buys each call once."""
    payer, signer = x402Client(), EthAccountSigner(Account.from_key(os.environ["X402_KEY"]))
    if os.environ.get("X402_SCHEME") == "upto":
        payer.register("eip155:*", UptoEvmScheme(signer))
    else:
        register_exact_evm_client(payer, signer)
    client = AsyncOpenAI(base_url=f"{URL}/v1", api_key="none", max_retries=0, http_client=x402HttpxClient(payer, timeout=60))
    models = [model.id async for model in client.models.list()]
    chat = await client.chat.completions.create(model=MODEL, messages=MESSAGES, max_tokens=7)
    pieces, usage, hidden = 0, None, True
    streamed = {"model": MODEL, "messages": MESSAGES, "max_tokens": 6, "temperature": 0, "stream": True}
    async for chunk in await client.chat.completions.create(**streamed, stream_options={"include_usage": True}):
        pieces += bool(chunk.choices and chunk.choices[0].delta.content)
        usage = chunk.usage or usage
    async for chunk in await client.chat.completions.create(**streamed):
        hidden = hidden and chunk.usage is None
    text = await client.completions.create(model=MODEL, prompt="hello", max_tokens=5)
    embedding = await client.embeddings.create(model=MODEL, input="hello", encoding_format="float")
    response = await client.responses.create(model=MODEL, input="hello", max_output_tokens=4)
    # The second stream says nothing of its usage: it is the first one's.
    counted = [chat.usage, usage, usage, text.usage, embedding.usage, response.usage]

    def total(*names: str) -> int:
        return sum(getattr(one, name, None) or 0 for one in counted for name in names)

    print(
        json.dumps(
            {
                "models": models,
                "chat": chat.usage.completion_tokens,
                "model": chat.model,
                "streamed": usage.completion_tokens,
                "pieces": pieces,
                "hidden": hidden,
                "completion": text.usage.completion_tokens,
                "embedding": len(embedding.data[0].embedding),
                "embedded": embedding.usage.prompt_tokens,
                "response": response.usage.output_tokens,
                "input": total("prompt_tokens", "input_tokens"),
                "output": total("completion_tokens", "output_tokens"),
            }
        )
    )


asyncio.run(main())
